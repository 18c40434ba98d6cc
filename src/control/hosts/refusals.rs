//! The last refusals of each host and each account, in memory and bounded: for those who ask why an
//! event is not out.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use ports::{HostId, Refusal};

use crate::{cache::Cache, unix_now};

/// Kept of one host and of one account.
const OF_HOST_MAX: usize = 64;
const OF_ACCOUNT_MAX: usize = 8;
/// Hosts and accounts of which some are kept; those that were refused last.
const HOSTS_MAX: usize = 4096;
const ACCOUNTS_MAX: usize = 16_384;

/// A refusal and when it was heard of, in Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub at: u64,
    pub refusal: Refusal,
}

#[derive(Debug)]
struct Rings {
    by_host: Cache<VecDeque<Refused>>,
    by_account: Cache<VecDeque<Refused>>,
}

/// Clones share the rings.
#[derive(Clone, Debug)]
pub struct Refusals(Arc<Mutex<Rings>>);

impl Default for Refusals {
    fn default() -> Self {
        let rings = Rings { by_host: Cache::new(HOSTS_MAX), by_account: Cache::new(ACCOUNTS_MAX) };
        Self(Arc::new(Mutex::new(rings)))
    }
}

impl Refusals {
    pub(crate) fn note(&self, refusals: &[Refusal]) {
        let at = unix_now();
        let mut rings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for refusal in refusals {
            let refused = Refused { at, refusal: refusal.clone() };
            if let Some(did) = &refusal.did {
                add(&mut rings.by_account, did, OF_ACCOUNT_MAX, refused.clone());
            }
            add(&mut rings.by_host, &refusal.host.to_string(), OF_HOST_MAX, refused);
        }
    }

    /// The newest first.
    pub fn of_host(&self, host: HostId) -> Vec<Refused> {
        let mut rings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        newest_first(rings.by_host.get(&host.to_string()))
    }

    /// The newest first.
    pub fn of_account(&self, did: &str) -> Vec<Refused> {
        let mut rings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        newest_first(rings.by_account.get(did))
    }
}

fn add(rings: &mut Cache<VecDeque<Refused>>, key: &str, max: usize, refused: Refused) {
    match rings.get(key) {
        Some(ring) => {
            if ring.len() == max {
                ring.pop_front();
            }
            ring.push_back(refused);
        }
        None => rings.insert(key, VecDeque::from([refused])),
    }
}

fn newest_first(ring: Option<&mut VecDeque<Refused>>) -> Vec<Refused> {
    ring.map(|ring| ring.iter().rev().cloned().collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use ports::{EventKind, HostSeq, RefusalReason};

    use super::*;

    fn refusal(host: u32, seq: u64, did: &str) -> Refusal {
        Refusal {
            host: HostId(host),
            host_seq: Some(HostSeq(seq)),
            kind: Some(EventKind::Commit),
            did: Some(did.into()),
            reason: RefusalReason::SignatureInvalid,
        }
    }

    #[test]
    fn a_flood_pushes_out_its_own_only() {
        let refusals = Refusals::default();
        refusals.note(&[refusal(1, 7, "did:plc:quiet")]);
        for seq in 0..50_000 {
            refusals.note(&[refusal(2, seq, &format!("did:plc:{}", seq % 7000))]);
        }
        let flood = refusals.of_host(HostId(2));
        assert_eq!(flood.len(), OF_HOST_MAX);
        assert_eq!(flood[0].refusal.host_seq, Some(HostSeq(49_999)));
        assert_eq!(refusals.of_host(HostId(1)).len(), 1);
        assert_eq!(refusals.of_account("did:plc:quiet")[0].refusal.host_seq, Some(HostSeq(7)));
        assert_eq!(refusals.of_account("did:plc:5").len(), OF_ACCOUNT_MAX);
        assert!(refusals.of_account("did:plc:none").is_empty());
        assert!(refusals.of_host(HostId(3)).is_empty());
    }
}
