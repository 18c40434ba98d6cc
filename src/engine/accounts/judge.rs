//! A frame that is right by itself, held against what we know of its account.
//!
//! No queues and no questions here: the verdict says what is to be done, `turn` does it.

use bytes::Bytes;
use ports::{Effective, HostId, LocalStatus, LookupWhy, RefusalReason, Strictness, UpstreamStatus};
use protocol::{
    DecodeError,
    frame::{self, Body},
};

use super::{
    check::{Checked, CheckedBody, CheckedCommit, Signed, Tree},
    limit::{Rate, Seconds},
    status::Heard,
    table::{Account, Standing},
    verified::{After, Evidence, Outgoing, SignatureOk, TreeOk},
    wait::{Looked, Pending},
};
use crate::upstream::RawFrame;

/// Fresh look-ups that the #identity events of the account's own host may cause.
const ANNOUNCED: Rate = Rate { burst: 5, interval: 30 };
/// Fresh look-ups because a signature does not fit, or the document is old. Beyond it a bad event is
/// refused at once: it must not hold up the good ones behind it.
const DOUBTED: Rate = Rate { burst: 4, interval: 30 };
/// Fresh look-ups because of events from hosts that do not hold the account. Beyond it they wait for
/// the next one: they hold up nobody, and one of them may be from the host that has it now.
const FOREIGN: Rate = Rate { burst: 3, interval: 20 };
/// Questions to the host of an account that it has called inactive.
const INACTIVE: Rate = Rate { burst: 3, interval: 60 };

/// What is to become of a frame.
#[derive(Debug)]
pub(super) enum Judgement {
    Forward(Forward),
    Refuse(RefusalReason),
    /// The host's word is noted, and changes nothing for consumers.
    Note(UpstreamStatus),
    /// Something must be looked up before this can be decided, after so many seconds.
    LookUp {
        why: LookupWhy,
        after: u32,
    },
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
    /// Unless the host says that the account is active.
    Inactive,
}

/// What is to be done about a frame that is right.
enum Decided {
    Forward(Forward),
    Note(UpstreamStatus),
    /// The host announces a change: a look-up first.
    LookUp,
}

impl From<RefusalReason> for Fault {
    fn from(reason: RefusalReason) -> Self {
        Self::Refused(reason)
    }
}

impl<V: FnMut(&Account, &Signed) -> bool> Case<'_, V> {
    pub(super) fn judge(mut self) -> Judgement {
        match self.decide() {
            Ok(Decided::Forward(forward)) => Judgement::Forward(forward),
            Ok(Decided::Note(said)) => Judgement::Note(said),
            Ok(Decided::LookUp) => Judgement::LookUp { why: LookupWhy::Announced, after: 0 },
            Err(Fault::Refused(reason)) => Judgement::Refuse(reason),
            Err(Fault::Doubtful(reason)) => self.doubt(reason),
            Err(Fault::Inactive) => {
                let limits = &mut self.account.limits;
                if !self.pending.looked.host && limits.inactive.take(INACTIVE, self.now) {
                    Judgement::LookUp { why: LookupWhy::Inactive, after: 0 }
                } else {
                    Judgement::Refuse(RefusalReason::AccountInactive)
                }
            }
        }
    }

    /// The document may have changed.
    fn doubt(&mut self, reason: RefusalReason) -> Judgement {
        if self.pending.looked.document.is_some() {
            return Judgement::Refuse(reason);
        }
        let foreign = self.is_foreign();
        let limits = &mut self.account.limits;
        if foreign {
            let after = limits.foreign.take_or_wait(FOREIGN, self.now);
            Judgement::LookUp { why: LookupWhy::Host, after }
        } else if limits.doubted.take(DOUBTED, self.now) {
            Judgement::LookUp { why: LookupWhy::Key, after: 0 }
        } else {
            Judgement::Refuse(reason)
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

    fn decide(&mut self) -> Result<Decided, Fault> {
        let checked = self.checked;
        match &checked.body {
            CheckedBody::Identity { handle, time_micros } => self.identity(*handle, *time_micros),
            _ if self.is_foreign() => Err(Fault::Doubtful(RefusalReason::HostMismatch)),
            CheckedBody::Account { status, word, time_micros } => {
                self.status(*status, *word, *time_micros)
            }
            CheckedBody::Commit(commit) => self.commit(commit).map(Decided::Forward),
            CheckedBody::Sync(signed) => self.sync(signed).map(Decided::Forward),
        }
    }

    fn commit(&mut self, commit: &CheckedCommit) -> Result<Forward, Fault> {
        self.check_local()?;
        self.check_rev(&commit.signed)?;
        self.check_upstream()?;
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
        self.check_local()?;
        self.check_rev(signed)?;
        self.check_upstream()?;
        let signature = self.check_signature(signed)?;
        let head = signed.head;
        self.account.move_to(&head);
        let out = self.unchanged();
        Ok(self.forward(Evidence::Sync { signature, head }, out))
    }

    /// The host speaks for itself only; what the relay says of the account goes before.
    ///
    /// A host may say again what it has said: that is passed on, if it is not an old event which comes
    /// again, and if it is the host's word that counts.
    fn status(
        &mut self,
        said: UpstreamStatus,
        word: u16,
        time: Option<i64>,
    ) -> Result<Decided, Fault> {
        // A host that has gone back in its stream tells old news again.
        if self.frame().is_rewound() && self.account.is_old_news(time) {
            return Err(RefusalReason::StatusUnchanged.into());
        }
        let hosts_word = self.account.status().local() == LocalStatus::Active;
        match self.account.hear(said, word) {
            Heard::Noted => return Ok(Decided::Note(said)),
            Heard::Known if !(hosts_word && self.account.is_later_notice(time)) => {
                return Err(RefusalReason::StatusUnchanged.into());
            }
            Heard::News | Heard::Known => {}
        }
        self.account.note_notice(time);
        self.account.status_mut().note_told();
        let effective = self.account.status().effective();
        let as_said = effective == Effective { active: said.active, word: said.word };
        let out =
            if as_said { self.unchanged() } else { rewritten(restated(self.frame(), effective))? };
        Ok(Decided::Forward(self.forward(Evidence::Account, out)))
    }

    /// "Something may have changed": looked up before it is passed on, so that whoever asks us
    /// then gets the new document.
    fn identity(&mut self, handle: Option<u32>, time: Option<i64>) -> Result<Decided, Fault> {
        let looked: Looked = self.pending.looked;
        if self.is_foreign() {
            // From another host it is passed on only if it is true.
            if looked.document != Some(true) {
                return Err(Fault::Doubtful(RefusalReason::IdentityUnchanged));
            }
        } else if looked.document.is_none() {
            if self.account.limits.announced.take(ANNOUNCED, self.now) {
                return Ok(Decided::LookUp);
            }
            self.account.mark_outdated();
        }
        // As above.
        let is_old = self.frame().is_rewound() && self.account.is_old_news(time);
        if is_old && looked.document != Some(true) {
            return Err(RefusalReason::IdentityUnchanged.into());
        }
        self.account.note_notice(time);
        let out = match handle {
            Some(handle) if !self.account.claims(handle) => {
                rewritten(frame::without_handle(self.frame().bytes()))?
            }
            _ => self.unchanged(),
        };
        Ok(Decided::Forward(self.forward(Evidence::Identity, out)))
    }

    fn check_local(&self) -> Result<(), Fault> {
        match self.account.status().local() {
            LocalStatus::Active => Ok(()),
            LocalStatus::Takendown => Err(RefusalReason::AccountTakendown.into()),
            LocalStatus::Throttled => Err(RefusalReason::AccountThrottled.into()),
        }
    }

    fn check_upstream(&self) -> Result<(), Fault> {
        if self.account.status().upstream().active { Ok(()) } else { Err(Fault::Inactive) }
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
        let is_first = self.account.rev().is_none();
        let strict = self.frame().strictness() == Strictness::Strict;
        match commit.tree {
            Tree::PrevData(before) => {
                Ok((TreeOk::Checked, self.account.left_other_than(&before).unwrap_or(false)))
            }
            Tree::Empty if is_first => Ok((TreeOk::Checked, false)),
            Tree::Empty | Tree::Unchecked { .. } if !strict => Ok((TreeOk::Waived, false)),
            Tree::Unchecked { since_is_null: true } if is_first => {
                Err(RefusalReason::InversionMismatch.into())
            }
            Tree::Empty | Tree::Unchecked { .. } => Err(RefusalReason::PrevDataMissing.into()),
            Tree::Unhashed => Err(RefusalReason::InversionMismatch.into()),
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
        let after = After::of(account);
        let revalidate = account.identity_is_old(self.identity_ttl, self.now)
            && !account.waits()
            && account.limits.doubted.take(DOUBTED, self.now);
        Forward { evidence, after, out, revalidate }
    }
}

/// The host's #account, with what counts in the place of what the host says.
fn restated(frame: &RawFrame, status: Effective) -> Result<Vec<u8>, DecodeError> {
    let event = frame::parse(frame.bytes())?;
    Ok(frame::account_frame(event.did, event.time, status.active, status.word.label()))
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
