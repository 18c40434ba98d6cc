//! In which collections accounts have records, as far as their commits tell.
//!
//! Each account has one bit for each of the first 63 collections that the shard meets, which are those
//! that nearly all records are in. Pairs of an account with another collection are in a set that is
//! emptied when it is full; then they are told again, as they are after a restart or after the
//! account was forgotten. What nobody here can know: records of before the relay first saw the account
//! that were never touched since, and whether a delete has taken the last record of a collection.

use std::collections::{HashMap, HashSet};

use foldhash::quality::RandomState;
use ports::AccountId;
use protocol::frame::{self, Action, Body, Op, Ops};

use super::table::Account;

/// So many collections have a bit of their own.
const FREQUENT: usize = 63;
/// The last bit of a mask: there is one among them that has none.
const OTHERS: u64 = 1 << FREQUENT;

const NAMES_MAX: usize = u16::MAX as usize;
const PAIRS_MAX: usize = 1 << 18;

#[derive(Debug, Default)]
pub(super) struct Collections {
    numbers: HashMap<Box<str>, u16, RandomState>,
    names: Vec<Box<str>>,
    /// Of collections without a bit.
    pairs: HashSet<(AccountId, u16), RandomState>,
    found: Vec<(AccountId, Box<str>)>,
}

impl Collections {
    /// The collections of a commit, before it is known whether it passes: nothing is kept of them.
    pub(super) fn mask(&self, ops: Ops<'_>) -> u64 {
        collections(ops).fold(0, |mask, name| {
            let number = self.numbers.get(name).copied().map(usize::from);
            mask | number.filter(|number| *number < FREQUENT).map_or(OTHERS, |number| 1 << number)
        })
    }

    /// The commit has passed.
    pub(super) fn note(&mut self, account: &mut Account, mask: u64, frame: &[u8]) {
        let mut new = account.note_collections(mask & !OTHERS);
        while new != 0 {
            let name = self.names[new.trailing_zeros() as usize].clone();
            self.found.push((account.id(), name));
            new &= new - 1;
        }
        if mask & OTHERS != 0
            && let Ok(event) = frame::parse(frame)
            && let Body::Commit(commit) = event.body
        {
            for name in collections(commit.ops) {
                self.note_other(account, name);
            }
        }
    }

    /// What was found since the last time, each pair once.
    pub(super) fn take(&mut self) -> Vec<(AccountId, Box<str>)> {
        std::mem::take(&mut self.found)
    }

    fn note_other(&mut self, account: &mut Account, name: &str) {
        let is_new = match self.number(name) {
            Some(number) if usize::from(number) < FREQUENT => {
                account.note_collections(1 << number) != 0
            }
            Some(number) => {
                if self.pairs.len() >= PAIRS_MAX {
                    self.pairs.clear();
                }
                self.pairs.insert((account.id(), number))
            }
            None => true,
        };
        if is_new {
            self.found.push((account.id(), name.into()));
        }
    }

    /// `None`: there are too many names.
    fn number(&mut self, name: &str) -> Option<u16> {
        if let Some(number) = self.numbers.get(name) {
            return Some(*number);
        }
        if self.names.len() >= NAMES_MAX {
            return None;
        }
        let number = self.names.len() as u16;
        self.names.push(name.into());
        self.numbers.insert(name.into(), number);
        Some(number)
    }
}

/// The collections in which the operations leave a record.
fn collections(ops: Ops<'_>) -> impl Iterator<Item = &str> {
    let leaves_record = |op: &Op<'_>| op.action != Action::Delete;
    ops.iter().filter(leaves_record).filter_map(|op| Some(op.path.split_once('/')?.0))
}
