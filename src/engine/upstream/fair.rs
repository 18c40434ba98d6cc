//! [`FairQueue`]: events of a host that is slowed down, which go on account by account.
//!
//! Behind the bulk import of one account stand the events of all others in the same stream. So a
//! slowed host is read on, up to its window, and what may go on is taken from each account in turn:
//! the import waits for itself. Events of one account keep their order.

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
};

use foldhash::quality::RandomState;

use super::RawFrame;

#[derive(Debug, Default)]
pub struct FairQueue {
    by_did: HashMap<Rc<str>, VecDeque<RawFrame>, RandomState>,
    /// Each DID that has frames, once.
    turns: VecDeque<Rc<str>>,
    bytes: usize,
}

/// What a waiting frame costs beside its bytes.
const FRAME_OVERHEAD_BYTES: usize = 256;

fn cost(frame: &RawFrame) -> usize {
    frame.bytes().len() + FRAME_OVERHEAD_BYTES
}

impl FairQueue {
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    pub fn push(&mut self, mut frame: RawFrame) {
        frame.detach();
        self.bytes += cost(&frame);
        if let Some(frames) = self.by_did.get_mut(frame.did()) {
            frames.push_back(frame);
            return;
        }
        let did: Rc<str> = frame.did().into();
        self.turns.push_back(Rc::clone(&did));
        self.by_did.insert(did, VecDeque::from([frame]));
    }

    /// The next frame of the account whose turn it is.
    pub fn pop(&mut self) -> Option<RawFrame> {
        let did = self.turns.pop_front()?;
        let frames = self.by_did.get_mut(&did)?;
        let frame = frames.pop_front();
        if frames.is_empty() {
            self.by_did.remove(&did);
        } else {
            self.turns.push_back(did);
        }
        let frame = frame?;
        self.bytes -= cost(&frame);
        Some(frame)
    }

    /// The memory that waiting frames take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts back a frame that was just taken, so that it is the next one again.
    pub fn unpop(&mut self, frame: RawFrame) {
        self.bytes += cost(&frame);
        let did: Rc<str> = frame.did().into();
        match self.by_did.get_mut(&did) {
            Some(frames) => {
                frames.push_front(frame);
                // Its account had gone to the end.
                self.turns.pop_back();
            }
            None => {
                self.by_did.insert(Rc::clone(&did), VecDeque::from([frame]));
            }
        }
        self.turns.push_front(did);
    }

    /// The tickets of all that waits, which is forgotten.
    pub fn clear(&mut self) -> Vec<u64> {
        self.turns.clear();
        self.bytes = 0;
        self.by_did.drain().flat_map(|(_, frames)| frames).map(|frame| frame.ticket()).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ports::{EventKind, HostId, HostSeq, ShardId, Strictness};
    use proptest::prelude::*;

    use super::*;
    use crate::upstream::{FrameOrigin, FrameOutline};

    fn frame(account: u8, number: u64) -> RawFrame {
        let origin = FrameOrigin {
            host: HostId(1),
            home: ShardId(0),
            strictness: Strictness::Strict,
            rewound: false,
        };
        let outline =
            FrameOutline { kind: EventKind::Commit, host_seq: HostSeq(number), did: 0..1 };
        RawFrame::new(origin, number, outline, Bytes::copy_from_slice(&[b'a' + account]))
    }

    #[test]
    fn an_account_with_much_waits_for_itself() {
        let mut queue = FairQueue::default();
        for number in 0..100 {
            queue.push(frame(0, number));
        }
        queue.push(frame(1, 100));
        queue.push(frame(2, 101));
        let order: Vec<u64> = (0..4).map(|_| queue.pop().unwrap().ticket()).collect();
        assert_eq!(order, [0, 100, 101, 1]);
        let again = queue.pop().unwrap();
        queue.unpop(again);
        assert_eq!(queue.pop().unwrap().ticket(), 2);
        assert_eq!(queue.clear().len(), 97);
        assert!(queue.is_empty() && queue.pop().is_none());
    }

    proptest! {
        #[test]
        fn all_come_out_once_each_account_in_order(steps in prop::collection::vec(0_u8..8, 0..200)) {
            let mut queue = FairQueue::default();
            let (mut last, mut count) = ([None; 6], 0_usize);
            let mut note = |frame: RawFrame| {
                let account = usize::from(frame.did().as_bytes()[0] - b'a');
                assert!(last[account] < Some(frame.ticket()));
                last[account] = Some(frame.ticket());
                count += 1;
            };
            let mut pushed = 0;
            for step in steps {
                match step {
                    6 => queue.pop().into_iter().for_each(&mut note),
                    7 => if let Some(frame) = queue.pop() {
                        let ticket = frame.ticket();
                        queue.unpop(frame);
                        let same = queue.pop().unwrap();
                        assert_eq!(same.ticket(), ticket);
                        note(same);
                    },
                    account => {
                        queue.push(frame(account, pushed));
                        pushed += 1;
                    }
                }
            }
            std::iter::from_fn(|| queue.pop()).for_each(&mut note);
            prop_assert!(queue.is_empty());
            prop_assert_eq!(count as u64, pushed);
        }
    }
}
