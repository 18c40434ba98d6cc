//! What hosts have made us do, for control's budgets.

use std::collections::HashMap;

use foldhash::quality::RandomState;
use ports::{HostId, HostProgress, LookupWhy};

/// Since the last report.
#[derive(Debug, Default)]
pub(super) struct Charges {
    by_host: HashMap<HostId, Charge, RandomState>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Charge {
    lookups: u64,
    accounts: u64,
    well_formed: u64,
    waived: u64,
}

impl Charges {
    /// A question for which the host is to blame: it sends events that do not fit.
    pub(super) fn note_question(&mut self, host: HostId, why: LookupWhy) {
        match why {
            LookupWhy::Key | LookupWhy::Host | LookupWhy::Inactive => self.note_lookup(host),
            LookupWhy::State | LookupWhy::Announced | LookupWhy::Old => {}
        }
    }

    /// A look-up in vain.
    pub(super) fn note_lookup(&mut self, host: HostId) {
        self.by_host.entry(host).or_default().lookups += 1;
    }

    /// A commit of a host that is held to lenient rules: whether it needed them.
    pub(super) fn note_lenient(&mut self, host: HostId, waived: bool) {
        let charge = self.by_host.entry(host).or_default();
        charge.waived += u64::from(waived);
        charge.well_formed += u64::from(!waived);
    }

    pub(super) fn note_account(&mut self, host: HostId, is_new: bool) {
        if is_new {
            self.by_host.entry(host).or_default().accounts += 1;
        }
    }

    /// As deltas, without any word on how far we are with the host.
    pub(super) fn take(&mut self) -> impl Iterator<Item = HostProgress> {
        std::mem::take(&mut self.by_host).into_iter().map(|(host, charge)| HostProgress {
            forced_lookups: charge.lookups,
            new_accounts: charge.accounts,
            well_formed: charge.well_formed,
            waived: charge.waived,
            ..HostProgress::new(host)
        })
    }
}
