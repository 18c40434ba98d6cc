//! Counting: every frame that came in ends as forwarded or refused, and is counted as such once.

use std::collections::VecDeque;

use ports::{Refusal, RefusalReason, Remark, Tally};

use super::Verified;
use crate::upstream::RawFrame;

/// Refusals that are kept for the next report.
const REFUSALS_KEPT: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Counter {
    tally: Tally,
    refusals: VecDeque<Refusal>,
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
        if self.refusals.len() == REFUSALS_KEPT {
            self.refusals.pop_front();
        }
        self.refusals.push_back(Refusal {
            host: frame.host(),
            host_seq: Some(frame.host_seq()),
            kind: Some(frame.kind()),
            did: Some(frame.did().into()),
            reason,
        });
    }

    /// What was counted since the last time.
    pub(super) fn take(&mut self) -> Tally {
        let mut tally = std::mem::take(&mut self.tally);
        tally.refusals = self.refusals.drain(..).collect();
        tally
    }
}
