//! A frame that is right by itself, held against what we know of its account.
//!
//! No queues and no questions here: the verdict says what is to be done, `turn` does it.

use bytes::Bytes;
use ports::{HostId, LocalStatus, RefusalReason, Strictness, UpstreamStatus};
use protocol::{
    DecodeError,
    frame::{self, Body},
};

use super::{
    check::{Checked, CheckedBody, CheckedCommit, Signed, Tree},
    limit::{Rate, Seconds},
    table::{Account, Standing},
    verified::{After, Evidence, Outgoing, SignatureOk, TreeOk},
    wait::{Looked, Pending},
};
use crate::upstream::RawFrame;

/// Fresh look-ups that the #identity events of the account's own host may cause.
const ANNOUNCED: Rate = Rate { burst: 5, interval: 30 };
/// Fresh look-ups because a signature does not fit, or the document is old.
const DOUBTED: Rate = Rate { burst: 1, interval: 60 };
/// Fresh look-ups because of events from hosts that do not hold the account.
const FOREIGN: Rate = Rate { burst: 3, interval: 60 };

/// What is to become of a frame.
#[derive(Debug)]
pub(super) enum Judgement {
    Forward(Forward),
    Refuse(RefusalReason),
    /// The document must be fetched anew before this can be decided.
    LookUp,
}

#[derive(Debug)]
pub(super) struct Forward {
    pub(super) evidence: Evidence,
    pub(super) after: After,
    pub(super) out: Outgoing,
    /// The document has passed its time: it is to be fetched anew, without waiting for it.
    pub(super) revalidate: bool,
}

/// One frame before its account.
pub(super) struct Case<'a, V> {
    pub(super) account: &'a mut Account,
    pub(super) pending: &'a Pending,
    pub(super) checked: &'a Checked,
    /// Verifies the signature; called last, when all else is right.
    pub(super) verify: V,
    pub(super) now: Seconds,
    /// The age in seconds at which a document has passed its time.
    pub(super) identity_ttl: u32,
}

/// Why a frame is not right for its account.
enum Fault {
    /// Nothing to be done about it.
    Refused(RefusalReason),
    /// Unless the DID document has changed.
    Doubtful(RefusalReason),
}

impl From<RefusalReason> for Fault {
    fn from(reason: RefusalReason) -> Self {
        Self::Refused(reason)
    }
}

impl<V: FnMut(&Account, &Signed) -> bool> Case<'_, V> {
    pub(super) fn judge(mut self) -> Judgement {
        match self.decide() {
            Ok(Some(forward)) => Judgement::Forward(forward),
            Ok(None) => Judgement::LookUp,
            Err(Fault::Refused(reason)) => Judgement::Refuse(reason),
            Err(Fault::Doubtful(reason)) => {
                let foreign = self.is_foreign();
                let limits = &mut self.account.limits;
                let (used, rate) = if foreign {
                    (&mut limits.foreign, FOREIGN)
                } else {
                    (&mut limits.doubted, DOUBTED)
                };
                if self.pending.looked == Looked::NotYet && used.take(rate, self.now) {
                    Judgement::LookUp
                } else {
                    Judgement::Refuse(reason)
                }
            }
        }
    }

    fn frame(&self) -> &RawFrame {
        &self.pending.frame
    }

    /// The sender is not the host that holds the account.
    fn is_foreign(&self) -> bool {
        let sender: HostId = self.frame().host();
        sender != self.account.host()
    }

    /// `None`: a look-up first.
    fn decide(&mut self) -> Result<Option<Forward>, Fault> {
        let checked = self.checked;
        match &checked.body {
            CheckedBody::Identity { handle } => self.identity(*handle),
            _ if self.is_foreign() => Err(Fault::Doubtful(RefusalReason::HostMismatch)),
            CheckedBody::Account(status) => self.status(*status).map(Some),
            CheckedBody::Commit(commit) => self.commit(commit).map(Some),
            CheckedBody::Sync(signed) => self.sync(signed).map(Some),
        }
    }

    fn commit(&mut self, commit: &CheckedCommit) -> Result<Forward, Fault> {
        self.check_active()?;
        self.check_rev(&commit.signed)?;
        let (tree, discontinuous) = self.check_continuity(commit)?;
        let out = if commit.lacks_defaults {
            rewritten(frame::with_defaults(self.frame().bytes()))?
        } else {
            self.unchanged()
        };
        let signature = self.check_signature(&commit.signed)?;
        let head = commit.signed.head;
        self.account.move_to(&head);
        Ok(self.forward(Evidence::Commit { signature, tree, discontinuous, head }, out))
    }

    fn sync(&mut self, signed: &Signed) -> Result<Forward, Fault> {
        self.check_active()?;
        self.check_rev(signed)?;
        let signature = self.check_signature(signed)?;
        let head = signed.head;
        self.account.move_to(&head);
        let out = self.unchanged();
        Ok(self.forward(Evidence::Sync { signature, head }, out))
    }

    /// The host speaks for itself only; what the relay says of the account goes before.
    fn status(&mut self, status: UpstreamStatus) -> Result<Forward, Fault> {
        let out = match self.account.local {
            LocalStatus::Active => self.unchanged(),
            LocalStatus::Takendown => rewritten(inactive(self.frame(), "takendown"))?,
            LocalStatus::Throttled => rewritten(inactive(self.frame(), "throttled"))?,
        };
        self.account.upstream = status;
        Ok(self.forward(Evidence::Account, out))
    }

    /// "Something may have changed": looked up before it is passed on, so that whoever asks us
    /// then gets the new document.
    fn identity(&mut self, handle: Option<u32>) -> Result<Option<Forward>, Fault> {
        if self.is_foreign() {
            // From another host it is passed on only if it is true.
            if self.pending.looked != (Looked::Done { changed: true }) {
                return Err(Fault::Doubtful(RefusalReason::IdentityUnchanged));
            }
        } else if self.pending.looked == Looked::NotYet {
            if self.account.limits.announced.take(ANNOUNCED, self.now) {
                return Ok(None);
            }
            self.account.mark_outdated();
        }
        let out = match handle {
            Some(handle) if !self.account.claims(handle) => {
                rewritten(frame::without_handle(self.frame().bytes()))?
            }
            _ => self.unchanged(),
        };
        Ok(Some(self.forward(Evidence::Identity, out)))
    }

    fn check_active(&self) -> Result<(), Fault> {
        match self.account.local {
            LocalStatus::Active => {}
            LocalStatus::Takendown => return Err(RefusalReason::AccountTakendown.into()),
            LocalStatus::Throttled => return Err(RefusalReason::AccountThrottled.into()),
        }
        if self.account.upstream.active {
            Ok(())
        } else {
            Err(RefusalReason::AccountInactive.into())
        }
    }

    fn check_rev(&self, signed: &Signed) -> Result<(), Fault> {
        if self.account.rev().is_some_and(|rev| signed.head.rev <= rev) {
            return Err(RefusalReason::RevStale.into());
        }
        Ok(())
    }

    /// How the commit's tree goes on from what we hold. `since` is not looked at where there is a
    /// `prevData`: it is not signed, and there are hosts that never fill it in.
    fn check_continuity(&self, commit: &CheckedCommit) -> Result<(TreeOk, bool), Fault> {
        let known = self.account.data();
        let strict = self.frame().strictness() == Strictness::Strict;
        match commit.tree {
            Tree::PrevData(before) => {
                Ok((TreeOk::Checked, known.is_some_and(|data| *data != before)))
            }
            Tree::Empty if known.is_none() => Ok((TreeOk::Checked, false)),
            Tree::Empty | Tree::Unchecked { .. } if !strict => Ok((TreeOk::Waived, false)),
            Tree::Unchecked { since_is_null: true } if known.is_none() => {
                Err(RefusalReason::InversionMismatch.into())
            }
            Tree::Empty | Tree::Unchecked { .. } => Err(RefusalReason::PrevDataMissing.into()),
        }
    }

    fn check_signature(&mut self, signed: &Signed) -> Result<SignatureOk, Fault> {
        let account = &*self.account;
        if account.standing() == Standing::Gone {
            return Err(Fault::Doubtful(RefusalReason::IdentityNotFound));
        }
        if account.key().is_none() {
            return Err(Fault::Doubtful(RefusalReason::KeyMissing));
        }
        SignatureOk::from_verdict((self.verify)(account, signed))
            .ok_or(Fault::Doubtful(RefusalReason::SignatureInvalid))
    }

    fn unchanged(&self) -> Outgoing {
        Outgoing { seq_span: self.checked.seq_span.clone(), rewritten: None }
    }

    fn forward(&mut self, evidence: Evidence, out: Outgoing) -> Forward {
        let account = &mut *self.account;
        let after =
            After { account: account.id(), upstream: account.upstream, local: account.local };
        let revalidate = account.identity_is_old(self.identity_ttl, self.now)
            && !account.waits()
            && account.limits.doubted.take(DOUBTED, self.now);
        Forward { evidence, after, out, revalidate }
    }
}

/// The host's #account, with what the relay says in its place.
fn inactive(frame: &RawFrame, status: &str) -> Result<Vec<u8>, DecodeError> {
    let event = frame::parse(frame.bytes())?;
    Ok(frame::account_frame(event.did, event.time, false, Some(status)))
}

/// A frame that goes on in another form than it came.
fn rewritten(frame: Result<Vec<u8>, DecodeError>) -> Result<Outgoing, RefusalReason> {
    let frame = frame.map_err(|_| RefusalReason::FrameMalformed)?;
    // Parsed again as any frame is: what goes out is held to what comes in.
    let event = frame::parse(&frame).map_err(|_| RefusalReason::FrameMalformed)?;
    debug_assert!(!matches!(event.body, Body::Sync(_)), "a #sync is never rewritten");
    let seq_span = event.seq_span.start as u32..event.seq_span.end as u32;
    Ok(Outgoing { seq_span, rewritten: Some(Bytes::from(frame)) })
}
