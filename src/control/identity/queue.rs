//! Waiting look-ups, in turn by the host that caused them.

use std::collections::{HashMap, VecDeque};

use ports::HostId;

/// A queue for each sender, served round-robin: whoever floods waits behind their own flood only.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    queues: HashMap<HostId, VecDeque<T>>,
    /// Senders with something waiting, in order of their turn.
    turns: VecDeque<HostId>,
    len: usize,
    per_sender_max: usize,
    total_max: usize,
}

impl<T> FairQueue<T> {
    pub(super) fn new(per_sender_max: usize, total_max: usize) -> Self {
        Self { queues: HashMap::new(), turns: VecDeque::new(), len: 0, per_sender_max, total_max }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether [`FairQueue::pop`] with the same condition would give something.
    pub(super) fn has(&self, free: impl Fn(HostId) -> bool) -> bool {
        self.turns.iter().any(|sender| free(*sender))
    }

    /// Whether there was room.
    pub(super) fn push(&mut self, sender: HostId, item: T) -> bool {
        // Even with the whole queue full, a sender with nothing in it gets one place in.
        let waiting = self.queues.get(&sender).map_or(0, VecDeque::len);
        if waiting >= self.per_sender_max || (self.len >= self.total_max && waiting > 0) {
            return false;
        }
        let queue = self.queues.entry(sender).or_default();
        if queue.is_empty() {
            self.turns.push_back(sender);
        }
        queue.push_back(item);
        self.len += 1;
        true
    }

    /// The next item of the next sender for whom `free` says yes.
    pub(super) fn pop(&mut self, free: impl Fn(HostId) -> bool) -> Option<(HostId, T)> {
        for _ in 0..self.turns.len() {
            let sender = self.turns.pop_front()?;
            if !free(sender) {
                self.turns.push_back(sender);
                continue;
            }
            let Some(queue) = self.queues.get_mut(&sender) else { continue };
            let item = queue.pop_front();
            if queue.is_empty() {
                self.queues.remove(&sender);
            } else {
                self.turns.push_back(sender);
            }
            if let Some(item) = item {
                self.len -= 1;
                return Some((sender, item));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_sender_delays_only_itself() {
        let mut queue = FairQueue::new(1000, 1500);
        for number in 0..2000 {
            assert_eq!(queue.push(HostId(1), number), number < 1000);
        }
        for number in 0..700 {
            assert_eq!(queue.push(HostId(2), number), number < 500);
        }
        assert!(queue.push(HostId(3), 0));
        assert!(!queue.push(HostId(3), 1));
        let order: Vec<u32> = (0..6).map(|_| queue.pop(|_| true).unwrap().0.0).collect();
        assert_eq!(order, [1, 2, 3, 1, 2, 1]);
        assert_eq!(queue.len(), 1495);
    }

    #[test]
    fn senders_without_a_free_place_are_passed_over() {
        let mut queue = FairQueue::new(10, 10);
        queue.push(HostId(1), 'a');
        queue.push(HostId(2), 'b');
        assert_eq!(queue.pop(|sender| sender != HostId(1)), Some((HostId(2), 'b')));
        assert_eq!(queue.pop(|sender| sender != HostId(1)), None);
        assert_eq!(queue.pop(|_| true), Some((HostId(1), 'a')));
        assert_eq!(queue.pop(|_| true), None);
    }
}
