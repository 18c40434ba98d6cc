//! Answers of control, and what happens when none comes.

use std::collections::HashMap;

use foldhash::quality::RandomState;
use ports::{AccountAnswer, HostId, IdentityAnswer, LookupWhy, RefusalReason};

use super::{
    Accounts, WallTime,
    did::{DidKey, DidRef},
    limit::Seconds,
    table::{Account, Standing},
    wait::{Ask, Lane, Looked},
};

impl Accounts {
    /// Takes an answer in. The frames that waited for it are handled in the next turn, before
    /// all others.
    pub fn handle_answer(&mut self, answer: AccountAnswer, now: WallTime) {
        let did = DidRef::new(&answer.did).to_key();
        let Some(ask) = self.waits.answered(&did) else {
            return self.take_unasked(&did, &answer, now);
        };
        if let Some(state) = &answer.state
            && self.table.add(&did, state, self.emitted)
        {
            let is_new = state.head.is_none() && state.announced.is_none();
            self.charges.note_account(ask.sender, is_new);
            self.announce_if_owed(&did, now);
        }
        if self.table.get(did.as_ref()).is_some() {
            self.answer_account(&did, ask, &answer, now);
        } else {
            self.answer_stranger(&did, ask, &answer, now);
        }
        self.waits.forget_if_idle(&did);
        self.mark_waits(&did);
    }

    /// Times that have come: frames that have waited long enough, questions to be asked (again).
    pub fn handle_timeout(&mut self, now: WallTime) {
        while let Some(did) = self.waits.pop_due(now) {
            if self.waits.is_over(&did, now) {
                match self.table.get(did.as_ref()).map(Account::standing) {
                    None | Some(Standing::Unknown) => self.give_up(&did, now),
                    // The key that we have will have to do.
                    Some(Standing::Known | Standing::Gone) => {
                        self.waits.give_out(&did, now, &mut self.resumed);
                    }
                }
            }
            if let Some(ask) = self.waits.take_due(&did, now) {
                self.ask(&did, ask);
            }
            self.waits.forget_if_idle(&did);
            self.mark_waits(&did);
        }
    }

    /// Nobody has asked (any more), but what is new is new.
    fn take_unasked(&mut self, did: &DidKey, answer: &AccountAnswer, now: WallTime) {
        if self.table.get(did.as_ref()).is_some() {
            self.learn(did, &answer.identity, now);
        }
    }

    /// Notes what the directory says; whether it is news.
    fn learn(&mut self, did: &DidKey, identity: &IdentityAnswer, now: WallTime) -> bool {
        let Some(account) = self.table.get_mut(did.as_ref()) else { return false };
        match identity {
            IdentityAnswer::Found(identity) => {
                let handle = identity.handle.as_deref();
                let hash = handle.map_or(0, |handle| self.checker.text_hash(handle));
                account.learn(identity, hash)
            }
            IdentityAnswer::NotFound => account.lose_identity(Seconds::from(now)),
            IdentityAnswer::Unavailable => false,
        }
    }

    fn answer_account(&mut self, did: &DidKey, ask: Ask, answer: &AccountAnswer, now: WallTime) {
        let changed = self.learn(did, &answer.identity, now);
        let standing = self.table.get(did.as_ref()).map(Account::standing);
        if standing == Some(Standing::Unknown) {
            let again = Ask { state_wanted: false, ..ask };
            return self.waits.retry_later(did, again, now);
        }
        let unavailable = answer.identity == IdentityAnswer::Unavailable;
        if ask.why == LookupWhy::Inactive {
            self.hear_of_host(did, answer, now);
            let looked = Looked { document: None, host: true };
            return self.waits.answer(did, looked, &mut self.resumed);
        }
        // Frames that are in doubt wait until the directory can be asked. The others are not worth
        // holding up an account: what is known of it will do.
        if unavailable && matches!(ask.why, LookupWhy::Key | LookupWhy::Host) {
            return self.waits.retry_later(did, ask, now);
        }
        self.waits.note_answer(did);
        let looked = if ask.fresh || answer.fresh || unavailable {
            if unavailable && let Some(account) = self.table.get_mut(did.as_ref()) {
                account.mark_outdated();
            }
            Looked::document(changed)
        } else {
            Looked::default()
        };
        self.waits.answer(did, looked, &mut self.resumed);
    }

    /// The account's host was asked about it. If it could not be, what it said last holds.
    fn hear_of_host(&mut self, did: &DidKey, answer: &AccountAnswer, now: WallTime) {
        let Some(status) = answer.host_status else { return };
        let Some(account) = self.table.get_mut(did.as_ref()) else { return };
        account.status_mut().hear(status, 0);
        self.announce_if_owed(did, now);
    }

    /// The store has no such account, and control does not want to make one for the sender.
    fn answer_stranger(&mut self, did: &DidKey, ask: Ask, answer: &AccountAnswer, now: WallTime) {
        let Some(sender) = self.waits.first_host(did) else { return };
        let why = LookupWhy::State;
        let (reason, host) = match &answer.identity {
            IdentityAnswer::Unavailable => return self.waits.retry_later(did, ask, now),
            _ if !ask.fresh && !answer.fresh => {
                // What was cached does not fit: it may be out of date.
                return self.ask(did, Ask { sender, why, fresh: true, state_wanted: true });
            }
            IdentityAnswer::NotFound => (RefusalReason::IdentityNotFound, None),
            IdentityAnswer::Found(identity) => (RefusalReason::HostMismatch, identity.host),
        };
        self.charges.note_lookup(ask.sender);
        // Who was asked for and named by the document, and is not wanted all the same, is not to
        // be asked for again.
        let hope = host.filter(|host| *host != ask.sender);
        self.strangers.note(did, Stranger { reason, hope, noted_at: now.into() });
        // A frame of the host that the document names has a better claim than the one asked for.
        let is_good = |sender: HostId| hope == Some(sender);
        while let Some(pending) =
            self.waits.pop_if(did, Lane::Own, |first| !is_good(first.frame.host()))
        {
            self.refuse(&pending.frame, reason);
        }
        if let Some(sender) = self.waits.first_host(did) {
            self.ask(did, Ask { sender, why, fresh: false, state_wanted: true });
        }
    }

    /// Refuses frames whose time is over and of whose account there is no identity.
    fn give_up(&mut self, did: &DidKey, now: WallTime) {
        for lane in Lane::ALL {
            while let Some(pending) = self.waits.pop_if(did, lane, |pending| pending.is_over(now)) {
                self.refuse(&pending.frame, RefusalReason::IdentityUnavailable);
            }
        }
    }
}

/// What was found out about a DID that has no account here.
#[derive(Clone, Copy, Debug)]
struct Stranger {
    reason: RefusalReason,
    /// A host that its document names, whose events are worth another question.
    hope: Option<HostId>,
    noted_at: Seconds,
}

/// DIDs that were looked up in vain a short while ago: who sends events for accounts that are not
/// its own must not make us ask for each of them.
///
/// Two generations: when the younger one is full, it becomes the older one, which is forgotten.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    young: HashMap<DidKey, Stranger, RandomState>,
    old: HashMap<DidKey, Stranger, RandomState>,
}

impl Strangers {
    const KEPT_SECONDS: u32 = 60;
    /// Of one generation.
    const COUNT_MAX: usize = 32_768;

    /// Why an event of this account from this host need not be looked up.
    pub(super) fn reason(
        &self,
        did: &DidKey,
        sender: HostId,
        now: Seconds,
    ) -> Option<RefusalReason> {
        let stranger = self.young.get(did).or_else(|| self.old.get(did))?;
        let holds =
            now.distance(stranger.noted_at) < Self::KEPT_SECONDS && stranger.hope != Some(sender);
        holds.then_some(stranger.reason)
    }

    fn note(&mut self, did: &DidKey, stranger: Stranger) {
        if self.young.len() >= Self::COUNT_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(did.clone(), stranger);
    }
}
