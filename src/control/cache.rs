//! A bounded cache in two generations: what was used since the last turn-over stays.
//!
//! Each look-up is one or two hash probes and nothing is linked, so that millions of entries cost no
//! more than their bytes. When the young generation is full it becomes the old one, and the old one
//! goes.

use std::collections::HashMap;

#[derive(Debug)]
pub(crate) struct Cache<V> {
    young: HashMap<Box<str>, V>,
    old: HashMap<Box<str>, V>,
    generation_max: usize,
}

impl<V> Cache<V> {
    /// Holds at most `entries_max` entries, and at least half of them.
    pub(crate) fn new(entries_max: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            generation_max: (entries_max / 2).max(1),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// The entry, which thereby is used.
    pub(crate) fn get(&mut self, key: &str) -> Option<&mut V> {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.make_room();
            return Some(self.young.entry(key).insert_entry(value).into_mut());
        }
        self.young.get_mut(key)
    }

    pub(crate) fn insert(&mut self, key: &str, value: V) {
        self.old.remove(key);
        if !self.young.contains_key(key) {
            self.make_room();
        }
        self.young.insert(key.into(), value);
    }

    fn make_room(&mut self) {
        if self.young.len() >= self.generation_max {
            self.old = std::mem::take(&mut self.young);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_within_its_bound_and_keeps_what_is_used() {
        let mut cache = Cache::new(100);
        cache.insert("kept", 7);
        for number in 0..10_000 {
            cache.insert(&number.to_string(), number);
            assert!(cache.len() <= 100);
            assert_eq!(cache.get("kept"), Some(&mut 7));
        }
        assert_eq!(cache.get("9999"), Some(&mut 9999));
        assert_eq!(cache.get("1"), None);
        cache.insert("9999", 1);
        assert_eq!(cache.get("9999"), Some(&mut 1));
    }
}
