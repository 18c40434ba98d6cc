//! Where a case is played: a host of its own with two accounts, on a relay that all cases of a table
//! share.

use std::collections::BTreeMap;

use ports::RefusalReason;
use serde_json::Value;

use crate::harness::{
    Consumer, FakePds, FakePlc, Relay, author::Author, consumer, eventually, json, pds,
};

pub(crate) type Case = (&'static str, fn(&mut Stage<'_>));

/// What all cases of a table share.
pub(crate) struct Net {
    pub plc: FakePlc,
    pub relay: Relay,
    consumer: Consumer,
    /// A host that does nothing wrong, and an account of it.
    bystander: FakePds,
    /// What must come out for each account, in order, without its seq.
    expected: BTreeMap<String, Vec<Vec<u8>>>,
    refused: BTreeMap<&'static str, u64>,
    /// Numbers for accounts, so that none is used twice.
    authors: u64,
}

pub(crate) struct Stage<'a> {
    pub net: &'a mut Net,
    pub pds: FakePds,
    /// Has sent a commit before the case, and sends one after it.
    pub alice: Author,
    /// Speaks after the case only.
    pub bob: Author,
    seq: u64,
}

impl Stage<'_> {
    /// A new account of this host, unknown to the relay.
    pub(crate) fn author(&mut self) -> Author {
        let author = Author::new(self.net.next());
        author.register(&self.net.plc, &self.pds);
        author
    }

    /// An account that no directory knows.
    pub(crate) fn stranger(&mut self) -> Author {
        Author::new(self.net.next())
    }

    pub(crate) fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// Skips numbers of the host.
    pub(crate) fn skip(&mut self, count: u64) {
        self.seq += count;
    }

    /// Sends an event that must come out as it is.
    pub(crate) fn good(&mut self, kind: &str, body: &Value) {
        self.good_as(kind, body, body);
    }

    /// Sends an event that must come out as another.
    pub(crate) fn good_as(&mut self, kind: &str, sent: &Value, expected: &Value) {
        self.send(kind, sent);
        self.expect(kind, expected);
    }

    /// An event that must come out now, whoever causes it.
    pub(crate) fn expect(&mut self, kind: &str, body: &Value) {
        let frame = self.encode(kind, body);
        self.expect_frame(&frame);
    }

    pub(crate) fn expect_frame(&mut self, frame: &[u8]) {
        let did = consumer::event(frame).did.to_owned();
        self.net.expected.entry(did).or_default().push(consumer::without_seq(frame));
    }

    /// Sends an event that must not come out.
    pub(crate) fn bad(&mut self, reason: RefusalReason, kind: &str, body: &Value) {
        self.send(kind, body);
        self.refused(reason, 1);
    }

    pub(crate) fn refused(&mut self, reason: RefusalReason, count: u64) {
        *self.net.refused.entry(reason.label()).or_default() += count;
    }

    /// Sends a message as it is that must not come out.
    pub(crate) fn bad_message(&mut self, reason: RefusalReason, message: &[u8]) {
        self.message(message);
        self.refused(reason, 1);
    }

    /// Sends a message as it is.
    pub(crate) fn message(&self, message: &[u8]) {
        let mut bytes = Vec::new();
        pds::write_message(&mut bytes, message);
        self.raw(&bytes);
    }

    /// Sends bytes as they are, behind all that was sent before.
    pub(crate) fn raw(&self, bytes: &[u8]) {
        self.pds.wait_until_written();
        self.pds.send_raw(bytes);
    }

    pub(crate) fn send(&mut self, kind: &str, body: &Value) {
        let seq = self.next_seq();
        let mut numbered = body.clone();
        numbered["seq"] = seq.into();
        self.pds.push(seq, json::event(kind, &numbered));
    }

    fn encode(&self, kind: &str, body: &Value) -> Vec<u8> {
        let mut numbered = body.clone();
        numbered["seq"] = self.seq.into();
        json::event(kind, &numbered)
    }

    /// Waits until all that must come out so far has come.
    pub(crate) fn settle(&self) {
        let count = self.net.expected.values().map(Vec::len).sum();
        self.net.consumer.wait_for(count);
    }
}

impl Net {
    fn start(table: u64) -> Self {
        let plc = FakePlc::start();
        let relay = Relay::start(&plc, &["--log-level", "info"]);
        let consumer = Consumer::connect(relay.api, None);
        let bystander = FakePds::start();
        relay.add_host(&bystander);
        Self {
            plc,
            relay,
            consumer,
            bystander,
            expected: BTreeMap::new(),
            refused: BTreeMap::new(),
            authors: table << 20,
        }
    }

    fn next(&mut self) -> u64 {
        self.authors += 1;
        self.authors
    }

    fn stage(&mut self) -> Stage<'_> {
        let pds = FakePds::start();
        self.relay.add_host(&pds);
        let (alice, bob) = (Author::new(self.next()), Author::new(self.next()));
        for author in [&alice, &bob] {
            author.register(&self.plc, &pds);
        }
        Stage { net: self, pds, alice, bob, seq: 0 }
    }

    fn play(&mut self, case: &Case, carol: &mut Author, number: u64) {
        let (name, act) = case;
        eprintln!("case: {name}");
        let mut stage = self.stage();
        let first = stage.alice.post();
        stage.good("commit", &first);
        stage.settle();
        act(&mut stage);
        let last = (stage.alice.post(), stage.bob.post());
        stage.good("commit", &last.0);
        stage.good("commit", &last.1);
        let mut post = carol.post();
        stage.expect("commit", &post);
        post["seq"] = number.into();
        stage.net.bystander.push(number, json::event("commit", &post));
        stage.settle();
        self.check(name);
    }

    /// What has come out is what had to.
    fn check(&self, name: &str) {
        let mut got: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for frame in self.consumer.frames() {
            let did = consumer::event(&frame).did.to_owned();
            got.entry(did).or_default().push(consumer::without_seq(&frame));
        }
        for (did, frames) in &got {
            let wanted = self.expected.get(did).map_or(&[][..], Vec::as_slice);
            let same = frames.iter().zip(wanted).take_while(|(got, wanted)| got == wanted).count();
            assert!(
                frames.len() == wanted.len() && same == wanted.len(),
                "{name}: {did}: {same} of {} events are right, {} came",
                wanted.len(),
                frames.len(),
            );
        }
    }

    /// Each refused frame was refused for its reason, and no other frame was.
    fn check_refusals(&self) {
        let total: u64 = self.refused.values().sum();
        let counts = eventually(&format!("{total} refusals"), || {
            let counts = self.refusals();
            (counts.values().sum::<u64>() >= total).then_some(counts)
        });
        assert_eq!(counts, self.refused);
    }

    fn refusals(&self) -> BTreeMap<&'static str, u64> {
        let metric = "relayered_accounts_refusals_total";
        let text = self.relay.metrics_text();
        let count = |reason: RefusalReason| {
            let name = format!("{metric}{{reason=\"{}\"}} ", reason.label());
            let value = text.lines().find_map(|line| line.strip_prefix(&name));
            (reason.label(), value.and_then(|value| value.parse().ok()).unwrap_or(0))
        };
        RefusalReason::ALL.iter().map(|r| count(*r)).filter(|(_, count)| *count > 0).collect()
    }
}

/// Plays all cases of a table, one after the other.
pub(crate) fn play(table: u64, cases: &[Case]) {
    let mut net = Net::start(table);
    let mut carol = Author::new(net.next());
    carol.register(&net.plc, &net.bystander);
    for (number, case) in (1..).zip(cases) {
        net.play(case, &mut carol, number);
    }
    net.check_refusals();
    net.check("at the end");
}

impl Stage<'_> {
    /// What this host answers to `getRepoStatus`; the DID is put in.
    pub(crate) fn net_status(&self, author: &Author, json: &str) {
        let mut status: Value = serde_json::from_str(json).unwrap();
        status["did"] = author.did.clone().into();
        self.pds.set_status(&author.did, status.to_string());
    }
}
