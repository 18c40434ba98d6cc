//! The turn: all frames checked, all signatures as one batch, then each frame before its account.

use std::time::Duration;

use ecdsa::Check;
use ports::{EventKind, LookupWhy, RefusalReason, Remark, Strictness};

use super::{
    Accounts, Checked, Noted, Pending, Scratch, Verified, WallTime,
    check::{CheckedBody, Checker},
    did_of,
    judge::{Case, Judgement},
    table::{Account, Standing, Table},
    wait::{Ask, Lane},
};

impl Accounts {
    /// Handles all frames that came in, and those that have waited long enough: all of these, as those
    /// of one account may wait again, and come out behind what has come in meanwhile.
    pub fn run_turn(&mut self, now: WallTime) {
        if !self.has_work() {
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.frames.append(&mut self.resumed);
        scratch.frames.append(&mut self.inbox);
        self.checker.begin_turn();
        let Scratch { frames, checked, .. } = &mut scratch;
        self.checker.check(frames, &self.collections, now, checked);
        verify_batch(&mut scratch, &self.table, &self.checker);
        let frames = scratch.frames.drain(..);
        let checked = scratch.checked.drain(..);
        for ((pending, checked), verdict) in frames.zip(checked).zip(&scratch.verdicts) {
            match checked {
                Ok(checked) => self.settle(pending, &checked, *verdict, now),
                Err(reason) => self.refuse(&pending.frame, reason),
            }
        }
        self.scratch = scratch;
    }

    /// One frame that is right by itself.
    fn settle(
        &mut self,
        mut pending: Pending,
        checked: &Checked,
        verdict: Option<bool>,
        now: WallTime,
    ) {
        let did = did_of(&pending.frame);
        let Some(account) = self.table.get_mut(did) else {
            return self.settle_stranger(pending, now);
        };
        account.note_used();
        let sender = pending.frame.host();
        let unknown = account.standing() == Standing::Unknown;
        let lane = if unknown || account.host() == sender { Lane::Own } else { Lane::Foreign };
        if account.waits() && self.waits.has_frames(&did.to_key(), lane) {
            if verdict == Some(true) {
                self.waits.note_key_holds(&did.to_key(), now);
            }
            return self.park(pending, lane, None, now);
        }
        if unknown {
            let why = LookupWhy::State;
            let ask = Ask { sender, why, fresh: false, state_wanted: false };
            return self.park(pending, lane, Some((ask, 0)), now);
        }
        let checker = &self.checker;
        let judgement = Case {
            account,
            pending: &pending,
            checked,
            verify: |account: &Account, signed: &_| {
                verdict.unwrap_or_else(|| {
                    check_of(account, checker, signed).is_some_and(|check| {
                        ecdsa::verify(check.key, check.message, check.signature)
                    })
                })
            },
            now: now.into(),
            identity_ttl: self.config.identity_ttl.as_secs() as u32,
        }
        .judge();
        match judgement {
            Judgement::Forward(forward) => {
                if let CheckedBody::Commit(commit) = &checked.body {
                    self.collections.note(account, commit.collections, pending.frame.bytes());
                }
                if forward.revalidate {
                    let did = did.to_key();
                    let why = LookupWhy::Old;
                    self.ask(&did, Ask { sender, why, fresh: true, state_wanted: false });
                    self.mark_waits(&did);
                }
                let lenient = pending.frame.strictness() == Strictness::Lenient;
                let verified =
                    Verified::new(pending.frame, forward.out, forward.after, &forward.evidence);
                if lenient && verified.kind() == EventKind::Commit {
                    self.charges.note_lenient(sender, verified.has_remark(Remark::TreeWaived));
                }
                self.counter.forwarded(&verified);
                self.emit(verified);
            }
            Judgement::Refuse(reason) => self.refuse(&pending.frame, reason),
            Judgement::Note(said) => {
                let account = account.id();
                self.noted.push_back(Noted { account, said, after: self.emitted });
                self.refuse(&pending.frame, RefusalReason::StatusUnchanged);
            }
            Judgement::LookUp { why, after } => {
                let fresh = why != LookupWhy::Inactive;
                pending.doubted = why == LookupWhy::Key;
                let ask = Ask { sender, why, fresh, state_wanted: false };
                self.park(pending, lane, Some((ask, after)), now);
            }
        }
    }

    /// A frame of an account that is not in memory.
    fn settle_stranger(&mut self, pending: Pending, now: WallTime) {
        let did = did_of(&pending.frame).to_key();
        let sender = pending.frame.host();
        if self.waits.contains(&did) {
            return self.park(pending, Lane::Own, None, now);
        }
        if let Some(reason) = self.strangers.reason(&did, sender, now.into()) {
            return self.refuse(&pending.frame, reason);
        }
        let ask = Ask { sender, why: LookupWhy::State, fresh: false, state_wanted: true };
        self.park(pending, Lane::Own, Some((ask, 0)), now);
    }

    /// Keeps the frame until an answer comes, and asks for it if that has not been done: at once, or
    /// after so many seconds.
    fn park(&mut self, mut pending: Pending, lane: Lane, ask: Option<(Ask, u32)>, now: WallTime) {
        let did = did_of(&pending.frame).to_key();
        if !self.waits.has_room(&did, &pending.frame) {
            return self.refuse(&pending.frame, RefusalReason::IdentityUnavailable);
        }
        if pending.deadline.is_none() {
            // The first time: the frame shares a large read buffer, which must not wait with it.
            pending.frame.detach();
            pending.deadline = Some(now.after(self.config.parked_wait));
        }
        self.waits.park(&did, lane, pending);
        match ask {
            Some((ask, 0)) => self.ask(&did, ask),
            Some((ask, after)) => {
                let at = now.after(Duration::from_secs(after.into()));
                self.waits.ask_at(&did, ask, at);
            }
            None => {}
        }
        self.mark_waits(&did);
    }
}

/// The check of a signature under the account's key.
fn check_of<'a>(
    account: &'a Account,
    checker: &'a Checker,
    signed: &'a super::check::Signed,
) -> Option<Check<'a>> {
    let key = account.key()?;
    Some(Check { key, message: checker.message(signed), signature: &signed.signature })
}

/// Verifies the signatures that will be asked for, as far as one can tell before the accounts have
/// moved. What this leaves out and is asked for after all is verified then.
fn verify_batch(scratch: &mut Scratch, table: &Table, checker: &Checker) {
    let Scratch { frames, checked, batch, batch_verdicts, verdicts } = scratch;
    let mut checks = std::mem::take(batch);
    verdicts.clear();
    for (pending, checked) in frames.iter().zip(checked.iter()) {
        let check = checked.as_ref().ok().and_then(|checked| {
            let signed = checked.body.signed()?;
            let account = table.get(did_of(&pending.frame))?;
            let hopeless = account.host() != pending.frame.host()
                || account.rev().is_some_and(|rev| signed.head.rev <= rev)
                || !account.status().upstream().active;
            if hopeless { None } else { check_of(account, checker, signed) }
        });
        verdicts.push(check.map(|_| false));
        checks.extend(check);
    }
    ecdsa::verify_batch(&checks, batch_verdicts);
    for (verdict, batched) in verdicts.iter_mut().flatten().zip(batch_verdicts.iter()) {
        *verdict = *batched;
    }
    *batch = emptied(checks);
}

/// The same room for checks of other frames. (Collecting into a vector of the same type is done
/// in place.)
fn emptied(mut checks: Vec<Check<'_>>) -> Vec<Check<'static>> {
    checks.clear();
    checks.into_iter().map_while(|_| None).collect()
}
