//! Where events end in the bytes of the log: a few bytes looked at for each event, none copied.

use ports::RelaySeq;
use protocol::frame::{Skim, skim};

use crate::log::message_span;

/// Goes over bytes that start with an event, from one boundary to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Walk {
    /// Where the last event starts that was gone over.
    last: usize,
    /// Where it ends.
    end: usize,
}

impl Walk {
    /// To the first boundary at or behind `least`, as far as events are there in full.
    pub(super) fn to(mut self, least: usize, bytes: &[u8]) -> Self {
        while self.end < least
            && let Some(message) = bytes.get(self.end..).and_then(message_span)
            && message.end <= bytes.len() - self.end
        {
            self.last = self.end;
            self.end += message.end;
        }
        self
    }

    pub(super) fn end(self) -> usize {
        self.end
    }

    /// The number of the last event that was gone over.
    pub(super) fn seq(self, bytes: &[u8]) -> Option<RelaySeq> {
        let event = bytes.get(self.last..self.end)?;
        match skim(event.get(message_span(event)?)?) {
            Ok(Skim::Event { seq, .. }) => Some(RelaySeq(seq)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::frame::account_frame;
    use tungstenite::protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    };

    use super::*;
    use crate::fanout::link::push_frame;

    fn push_event(out: &mut Vec<u8>, message: Vec<u8>) {
        push_frame(out, Frame::message(message, OpCode::Data(Data::Binary), true));
    }

    proptest! {
        #[test]
        fn boundaries_are_found(
            lens in prop::collection::vec(prop_oneof![0..200_usize, 60_000..70_000_usize], 1..12),
            cut in any::<prop::sample::Index>(),
            least in any::<prop::sample::Index>(),
        ) {
            let (mut bytes, mut ends) = (Vec::new(), vec![0]);
            for len in lens {
                push_event(&mut bytes, vec![0x82; len]);
                ends.push(bytes.len());
            }
            let least = least.index(bytes.len() + 1);
            bytes.truncate(cut.index(bytes.len() + 1));
            let whole = ends.iter().copied().filter(|end| *end <= bytes.len());
            let expected = whole.clone().find(|end| *end >= least).or(whole.max()).unwrap();
            prop_assert_eq!(Walk::default().to(least, &bytes).end(), expected);
            prop_assert_eq!(Walk::default().to(least / 2, &bytes).to(least, &bytes).end(), expected);
        }

        #[test]
        fn no_bytes_make_it_go_astray(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let walk = Walk::default().to(usize::MAX, &bytes);
            prop_assert!(walk.end() <= bytes.len());
            walk.seq(&bytes);
        }
    }

    #[test]
    fn the_last_number_is_read_from_the_event() {
        let mut bytes = Vec::new();
        push_event(&mut bytes, account_frame("did:web:a.test", "2026-01-01T00:00:00Z", true, None));
        let whole = Walk::default().to(1, &bytes);
        assert_eq!(whole.seq(&bytes), Some(RelaySeq(0)));
        assert_eq!(Walk::default().seq(&bytes), None);
    }
}
