//! The turn: all frames checked, all signatures as one batch, then each frame before its account.

use ecdsa::Check;
use ports::RefusalReason;

use super::{
    Accounts, Checked, Pending, Scratch, Verified, WallTime,
    check::Checker,
    did_of,
    judge::{Case, Judgement},
    table::{Account, Standing, Table},
    wait::Ask,
};

impl Accounts {
    /// Handles all frames that came in, and those that have waited long enough.
    pub fn run_turn(&mut self, now: WallTime) {
        if !self.has_work() {
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.frames.append(&mut self.resumed);
        scratch.frames.append(&mut self.inbox);
        self.checker.begin_turn();
        let Scratch { frames, checked, .. } = &mut scratch;
        checked.extend(frames.iter().map(|pending| self.checker.check(&pending.frame, now)));
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
        pending: Pending,
        checked: &Checked,
        verdict: Option<bool>,
        now: WallTime,
    ) {
        let did = did_of(&pending.frame);
        let Some(account) = self.table.get_mut(did) else {
            return self.settle_stranger(pending, now);
        };
        let sender = pending.frame.host();
        if account.waits() && self.waits.has_frames(&did.to_key()) {
            return self.park(pending, None, now);
        }
        if account.standing() == Standing::Unknown {
            let ask = Ask { sender, fresh: false, state_wanted: false };
            return self.park(pending, Some(ask), now);
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
                if forward.revalidate {
                    let did = did.to_key();
                    self.waits.ask(&did, Ask { sender, fresh: true, state_wanted: false });
                    self.mark_waits(&did);
                }
                let verified =
                    Verified::new(pending.frame, forward.out, forward.after, &forward.evidence);
                self.counter.forwarded(&verified);
                self.verified.push_back(verified);
            }
            Judgement::Refuse(reason) => self.refuse(&pending.frame, reason),
            Judgement::LookUp => {
                let ask = Ask { sender, fresh: true, state_wanted: false };
                self.park(pending, Some(ask), now);
            }
        }
    }

    /// A frame of an account that is not in memory.
    fn settle_stranger(&mut self, pending: Pending, now: WallTime) {
        let did = did_of(&pending.frame).to_key();
        let sender = pending.frame.host();
        if self.waits.contains(&did) {
            return self.park(pending, None, now);
        }
        if let Some(reason) = self.strangers.reason(&did, sender, now.into()) {
            return self.refuse(&pending.frame, reason);
        }
        let ask = Ask { sender, fresh: false, state_wanted: true };
        self.park(pending, Some(ask), now);
    }

    /// Keeps the frame until an answer comes, and asks for it if that has not been done.
    fn park(&mut self, mut pending: Pending, ask: Option<Ask>, now: WallTime) {
        if self.waits.bytes() + pending.frame.bytes().len() > self.config.parked_bytes_max {
            return self.refuse(&pending.frame, RefusalReason::IdentityUnavailable);
        }
        let did = did_of(&pending.frame).to_key();
        if pending.deadline.is_none() {
            // The first time: the frame shares a large read buffer, which must not wait with it.
            pending.frame.detach();
            pending.deadline = Some(now.after(self.config.parked_wait));
        }
        self.waits.park(&did, pending);
        if let Some(ask) = ask {
            self.waits.ask(&did, ask);
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
                || !account.upstream.active;
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
