//! What the relay itself says of an account: #account events that no host has sent.

use bytes::Bytes;
use ports::{Effective, LocalStatus, SetLocal};
use protocol::{frame, syntax::datetime};

use super::{
    Accounts, WallTime,
    did::{DidKey, DidRef},
    verified::{After, Outgoing, Verified},
};

impl Accounts {
    /// Sets what the relay says of the account; the #account of it, if there is one to be made, goes
    /// before whatever comes of the account after this.
    pub fn handle_set_local(&mut self, set: &SetLocal, now: WallTime) {
        let did = DidRef::new(&set.did).to_key();
        self.table.add(&did, &set.state, self.emitted);
        let Some(account) = self.table.get_mut(did.as_ref()) else { return };
        account.note_used();
        let local = set.state.local;
        account.status_mut().set_local(local);
        self.local_set.push((account.id(), local));
        if local == LocalStatus::Takendown {
            // Also if its host has taken it down before: the log erases what is older than this.
            self.announce(&did, now);
        } else {
            self.announce_if_owed(&did, now);
        }
        self.mark_waits(&did);
    }

    /// Makes an #account if what consumers believe of the account is not what counts.
    pub(super) fn announce_if_owed(&mut self, did: &DidKey, now: WallTime) {
        if self.table.get_mut(did.as_ref()).is_some_and(|account| account.status().is_owed()) {
            self.announce(did, now);
        }
    }

    fn announce(&mut self, did: &DidKey, now: WallTime) {
        let Some(account) = self.table.get_mut(did.as_ref()) else { return };
        account.status_mut().note_told();
        let after = After::of(account);
        let out = frame_of(&did.text(), account.status().effective(), now);
        self.emit(Verified::by_relay(out, after, self.config.shard));
    }
}

/// The relay's #account.
fn frame_of(did: &str, status: Effective, now: WallTime) -> Outgoing {
    let time = datetime::from_unix_micros(now.micros());
    let frame = frame::account_frame(did, &time, status.active, status.word.label());
    let seq_span = frame::parse(&frame)
        .map(|event| event.seq_span)
        .expect("a DID that is kept was checked, and the rest is made here");
    Outgoing {
        seq_span: seq_span.start as u32..seq_span.end as u32,
        rewritten: Some(Bytes::from(frame)),
    }
}
