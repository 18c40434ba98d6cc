//! Which shard owns an account.

use std::{
    hash::{BuildHasher, RandomState},
    sync::OnceLock,
};

use crate::ShardId;

/// The shard that owns the account: by a hash with a key that is new in each process, as DIDs are
/// chosen by strangers, who must not be able to aim at one shard.
pub fn owner_of(did: &str, shards: usize) -> ShardId {
    static KEY: OnceLock<RandomState> = OnceLock::new();
    let hash = KEY.get_or_init(RandomState::new).hash_one(did);
    ShardId((hash % shards.max(1) as u64) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_spread_over_all_shards_and_stay_there() {
        let mut counts = [0_u32; 4];
        for number in 0..4000 {
            let did = format!("did:web:{number}.test");
            let owner = owner_of(&did, 4);
            assert_eq!(owner, owner_of(&did, 4));
            counts[usize::from(owner.0)] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
        assert_eq!(owner_of("did:web:a.test", 0), ShardId(0));
    }
}
