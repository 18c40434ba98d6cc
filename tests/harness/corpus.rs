//! The corpus in `tests/data/corpus`: 2,081 events of 80 accounts on 3 hosts, made by the reference
//! library, ready to be played by fake hosts.

use std::{collections::HashMap, fs, path::PathBuf};

use ecdsa::Curve;
use protocol::did_doc;
use serde_json::Value;

use super::{FakePds, FakePlc, consumer};

pub const HOSTS: usize = 3;

pub struct Corpus {
    /// The frames of each host with their seq, in order.
    pub hosts: [Vec<(u64, Vec<u8>)>; HOSTS],
    documents: HashMap<String, Value>,
}

impl Corpus {
    pub fn load() -> Self {
        let hosts = std::array::from_fn(|host| read_frames(&format!("hosts/{host}.frames")));
        let documents = serde_json::from_slice(&read("plc.json")).unwrap();
        Self { hosts, documents }
    }

    /// Three hosts that are not streaming yet, and a directory whose documents name them.
    pub fn network(&self) -> (FakePlc, [FakePds; HOSTS]) {
        let plc = FakePlc::start();
        let hosts = self.fill(&plc);
        (plc, hosts)
    }

    /// The same with a directory that is there.
    pub fn fill(&self, plc: &FakePlc) -> [FakePds; HOSTS] {
        let hosts: [FakePds; HOSTS] = std::array::from_fn(|_| FakePds::start());
        for (did, document) in &self.documents {
            let endpoint = document["service"][0]["serviceEndpoint"].as_str().unwrap();
            let port: usize = endpoint.rsplit(':').next().unwrap().parse().unwrap();
            plc.put(did, self.document(did, &hosts[port - 21_000].url()));
        }
        hosts
    }

    pub fn dids(&self) -> impl Iterator<Item = &str> {
        self.documents.keys().map(String::as_str)
    }

    pub fn multibase_key(&self, did: &str) -> String {
        let method = &self.documents[did]["verificationMethod"][0];
        method["publicKeyMultibase"].as_str().unwrap().to_owned()
    }

    /// An account's document, with the given place for its PDS.
    pub fn document(&self, did: &str, pds_url: &str) -> String {
        let mut document = self.documents[did].clone();
        document["service"][0]["serviceEndpoint"] = pds_url.into();
        document.to_string()
    }

    /// The curve of an account's key.
    pub fn curve(&self, did: &str) -> Curve {
        let document = self.documents[did].to_string();
        did_doc::parse(document.as_bytes(), did).unwrap().key.unwrap().curve()
    }

    pub fn event_count(&self) -> usize {
        self.hosts.iter().map(Vec::len).sum()
    }

    /// Asserts that the frames are exactly the corpus: each event once, unchanged but for its seq,
    /// in each account's order, with increasing seq.
    pub fn assert_complete(&self, received: &[Vec<u8>]) {
        let seqs: Vec<u64> = received.iter().map(|frame| consumer::event(frame).seq).collect();
        assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "seq does not increase: {seqs:?}");
        let sent = by_account(self.hosts.iter().flatten().map(|(_, frame)| frame.as_slice()));
        let got = by_account(received.iter().map(Vec::as_slice));
        for (did, frames) in &sent {
            let mine = got.get(did).map_or(&[][..], Vec::as_slice);
            assert_eq!(mine.len(), frames.len(), "number of events of {did}");
            assert!(mine == frames, "events of {did} differ or are out of order");
        }
        assert_eq!(received.len(), self.event_count());
    }
}

fn by_account<'a>(frames: impl Iterator<Item = &'a [u8]>) -> HashMap<String, Vec<Vec<u8>>> {
    let mut accounts: HashMap<String, Vec<Vec<u8>>> = HashMap::new();
    for frame in frames {
        let did = consumer::event(frame).did.to_owned();
        accounts.entry(did).or_default().push(consumer::without_seq(frame));
    }
    accounts
}

fn read(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn read_frames(name: &str) -> Vec<(u64, Vec<u8>)> {
    let bytes = read(name);
    let mut rest = bytes.as_slice();
    let mut frames = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let (frame, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
        frames.push((consumer::event(frame).seq, frame.to_vec()));
        rest = tail;
    }
    frames
}
