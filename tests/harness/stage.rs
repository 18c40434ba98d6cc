//! A relay with the corpus's three hosts, which send what they are told to.

use std::ops::Range;

use super::{
    Disk, FakePds, FakePlc, Relay,
    corpus::{Corpus, HOSTS},
};

pub struct Stage {
    pub corpus: Corpus,
    pub hosts: [FakePds; HOSTS],
    pub relay: Relay,
    plc: FakePlc,
}

impl Stage {
    /// Starts the relay, and waits until it has connected to all hosts.
    pub fn new(arguments: &[&str]) -> Self {
        Self::prepared(arguments, |_| {})
    }

    /// The same, and the disk under the relay's data folder.
    pub fn on_disk(arguments: &[&str]) -> (Self, Disk) {
        let mut disk = None;
        let stage = Self::prepared(arguments, |relay| {
            let under = disk.insert(Disk::under(relay.data_dir()));
            relay.set_environment(under.environment());
        });
        (stage, disk.unwrap())
    }

    fn prepared(arguments: &[&str], prepare: impl FnOnce(&mut Relay)) -> Self {
        let corpus = Corpus::load();
        let (plc, hosts) = corpus.network();
        let mut relay = Relay::unstarted(&plc.url(), arguments);
        prepare(&mut relay);
        relay.launch();
        for pds in &hosts {
            relay.add_host(pds);
        }
        Self { corpus, hosts, relay, plc }
    }

    /// Replaces the relay's arguments for its next launch.
    pub fn set_arguments(&mut self, arguments: &[&str]) {
        self.relay.set_arguments(&self.plc, arguments);
    }

    /// Lets each host send the events in that range of its stream, as far as there are so many.
    pub fn push(&self, range: Range<usize>) {
        for (pds, frames) in self.hosts.iter().zip(&self.corpus.hosts) {
            let range = range.start.min(frames.len())..range.end.min(frames.len());
            pds.push_all(frames[range].iter().cloned());
        }
    }

    /// How many events all hosts have sent, if each has sent so many.
    pub fn count(&self, each: usize) -> usize {
        self.corpus.hosts.iter().map(|frames| frames.len().min(each)).sum()
    }

    /// The length of the longest stream.
    pub fn longest(&self) -> usize {
        self.corpus.hosts.iter().map(Vec::len).max().unwrap_or(0)
    }
}
