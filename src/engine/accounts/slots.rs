//! Accounts at fixed places, found by their keys, and forgotten when they have not been used for
//! long.
//!
//! A slot never moves: slots come in chunks that are allocated once. The index is cut into many
//! small tables, so that it grows in small steps: no turn waits while a table of millions is
//! copied. Which accounts to forget is told by a clock: a hand goes round, takes the mark off every
//! account that was used since it last passed, and forgets those that have none.

use std::{
    borrow::Borrow,
    hash::{BuildHasher, Hash},
};

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::table::Account;

/// Slots allocated at once: about 600 KB.
const CHUNK_SLOTS: usize = 4096;

/// How far the hand goes in one call.
const STEPS_MAX: usize = 32;

#[derive(Debug)]
pub(super) struct Slot<K> {
    /// `None`: free.
    key: Option<K>,
    account: Account,
}

#[derive(Debug)]
pub(super) struct Slots<K> {
    chunks: Vec<Vec<Slot<K>>>,
    free: Vec<u32>,
    segments: Box<[HashTable<u32>]>,
    /// Seeded anew in each process, as DIDs are chosen by strangers.
    hasher: RandomState,
    len: usize,
    hand: usize,
}

impl<K: Hash + Eq> Slots<K> {
    /// `segments`: into how many tables the index is cut.
    pub(super) fn new(segments: usize) -> Self {
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
            segments: (0..segments.max(1)).map(|_| HashTable::new()).collect(),
            hasher: RandomState::default(),
            len: 0,
            hand: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&Account>
    where
        K: Borrow<Q>,
    {
        let place = self.place_of(key)?;
        Some(&self.slot(place).account)
    }

    pub(super) fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut Account>
    where
        K: Borrow<Q>,
    {
        let place = self.place_of(key)?;
        Some(&mut self.slot_mut(place).account)
    }

    /// Adds an account that is not there yet.
    pub(super) fn insert(&mut self, key: K, account: Account) {
        let hash = self.hasher.hash_one(&key);
        let slot = Slot { key: Some(key), account };
        let place = match self.free.pop() {
            Some(place) => {
                *self.slot_mut(place) = slot;
                place
            }
            None => self.append(slot),
        };
        let segment = self.segment_of(hash);
        let Self { chunks, segments, hasher, .. } = self;
        segments[segment].insert_unique(hash, place, |place| {
            at(chunks, *place).key.as_ref().map_or(0, |key| hasher.hash_one(key))
        });
        self.len += 1;
    }

    /// Moves the hand on until `forget` has let one account go, or for a few steps. Returns whether
    /// the hand has come round.
    pub(super) fn sweep(&mut self, mut forget: impl FnMut(&mut Account) -> bool) -> bool {
        let slots = self.chunks.iter().map(Vec::len).sum::<usize>();
        for _ in 0..STEPS_MAX.min(slots) {
            let place = self.hand as u32;
            self.hand += 1;
            let slot = self.slot_mut(place);
            let gone = slot.key.is_some() && forget(&mut slot.account);
            if gone {
                self.remove(place);
            }
            if self.hand >= slots {
                self.hand = 0;
                return true;
            }
            if gone {
                return false;
            }
        }
        false
    }

    fn append(&mut self, slot: Slot<K>) -> u32 {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_SLOTS) {
            self.chunks.push(Vec::with_capacity(CHUNK_SLOTS));
        }
        let before = (self.chunks.len() - 1) * CHUNK_SLOTS;
        let chunk = self.chunks.last_mut().expect("one was pushed if there was none");
        chunk.push(slot);
        (before + chunk.len() - 1) as u32
    }

    fn remove(&mut self, place: u32) {
        let Some(key) = self.slot_mut(place).key.take() else { return };
        let hash = self.hasher.hash_one(&key);
        let segment = self.segment_of(hash);
        if let Ok(entry) = self.segments[segment].find_entry(hash, |found| *found == place) {
            entry.remove();
        }
        self.free.push(place);
        self.len -= 1;
    }

    fn place_of<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
    {
        let hash = self.hasher.hash_one(key);
        let is_key =
            |place: &u32| self.slot(*place).key.as_ref().is_some_and(|k| k.borrow() == key);
        self.segments[self.segment_of(hash)].find(hash, is_key).copied()
    }

    /// The tables look at the lowest and the highest bits.
    fn segment_of(&self, hash: u64) -> usize {
        (hash >> 32) as u32 as usize % self.segments.len()
    }

    fn slot(&self, place: u32) -> &Slot<K> {
        at(&self.chunks, place)
    }

    fn slot_mut(&mut self, place: u32) -> &mut Slot<K> {
        &mut self.chunks[place as usize / CHUNK_SLOTS][place as usize % CHUNK_SLOTS]
    }
}

fn at<K>(chunks: &[Vec<Slot<K>>], place: u32) -> &Slot<K> {
    &chunks[place as usize / CHUNK_SLOTS][place as usize % CHUNK_SLOTS]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ports::{AccountId, AccountState, HostId, LocalStatus, UpstreamStatus};
    use proptest::prelude::*;

    use super::*;

    fn account(number: u64) -> Account {
        Account::new(&AccountState {
            id: AccountId(number),
            host: HostId(1),
            upstream: UpstreamStatus::ACTIVE,
            local: LocalStatus::Active,
            announced: None,
            head: None,
        })
    }

    proptest! {
        /// Few keys and segments, so that places are used again and tables grow.
        #[test]
        fn holds_what_a_map_holds(acts in prop::collection::vec((0..40u64, any::<bool>()), 0..400)) {
            let mut slots: Slots<u64> = Slots::new(3);
            let mut model = BTreeMap::new();
            for (number, add) in acts {
                if add && !model.contains_key(&number) {
                    slots.insert(number, account(number));
                    model.insert(number, number);
                } else if !add {
                    slots.sweep(|account| {
                        let gone = account.id().0 >= number;
                        if gone {
                            model.remove(&account.id().0);
                        }
                        gone
                    });
                }
                prop_assert_eq!(slots.len(), model.len());
                for key in 0..40 {
                    let found = slots.get(&key).map(|account| account.id().0);
                    prop_assert_eq!(found, model.get(&key).copied());
                }
            }
        }
    }

    #[test]
    fn the_hand_sees_every_account_once_a_round() {
        let mut slots: Slots<u64> = Slots::new(16);
        let count = 2 * CHUNK_SLOTS as u64 + 7;
        (0..count).for_each(|number| slots.insert(number, account(number)));
        let mut seen = vec![0; count as usize];
        let mut calls = 0;
        while !slots.sweep(|account| {
            seen[account.id().0 as usize] += 1;
            false
        }) {
            calls += 1;
        }
        assert!(seen.iter().all(|times| *times == 1));
        assert!(calls >= count as usize / STEPS_MAX - 1);
    }
}
