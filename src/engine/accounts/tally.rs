//! Counting: every frame that came in ends as forwarded or refused, and is counted as such once.

use ports::{Refusal, RefusalReason, Remark, Tally};

use super::Verified;
use crate::{refusals::keep, upstream::RawFrame};

#[derive(Debug, Default)]
pub(super) struct Counter {
    tally: Tally,
}

impl Counter {
    pub(super) fn received(&mut self, frame: &RawFrame) {
        self.tally.received[frame.kind().index()] += 1;
        self.tally.received_bytes += frame.bytes().len() as u64;
    }

    pub(super) fn forwarded(&mut self, verified: &Verified) {
        self.tally.forwarded[verified.kind().index()] += 1;
        for remark in Remark::ALL {
            self.tally.remarks[remark.index()] += u64::from(verified.has_remark(remark));
        }
    }

    pub(super) fn refused(&mut self, frame: &RawFrame, reason: RefusalReason) {
        self.tally.refused[reason.index()] += 1;
        let refusal = Refusal {
            host: frame.host(),
            host_seq: Some(frame.host_seq()),
            kind: Some(frame.kind()),
            did: Some(frame.did().into()),
            reason,
        };
        keep(&mut self.tally.refusals, refusal);
    }

    /// What was counted since the last time.
    pub(super) fn take(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }
}
