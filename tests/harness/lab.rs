//! A relay with hosts that number what they send, and what has come out of each account.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    Consumer, FakePds, FakePlc, Relay, author::Author, consumer, eventually, http, json as frames,
    patience,
};
use protocol::frame::Body;

/// Otherwise hosts may do as much as they like, as far as tests go.
pub const UNTRUSTED: &[&str] = &["--trusted-domains", "*.example"];

pub struct Lab {
    pub plc: FakePlc,
    pub relay: Relay,
    pub consumer: Consumer,
    authors: u64,
}

/// A host and the number of its last event.
pub struct Host {
    pub pds: FakePds,
    pub seq: u64,
}

impl Lab {
    /// `number` keeps the accounts of one test apart from those of others.
    pub fn start(number: u64, arguments: &[&str]) -> Self {
        let plc = FakePlc::start();
        let relay = Relay::start(&plc, arguments);
        let consumer = Consumer::connect(relay.api, None);
        Self { plc, relay, consumer, authors: number << 20 }
    }

    /// A host to which the relay has connected.
    pub fn host(&self) -> Host {
        let host = Host::start();
        self.relay.add_host(&host.pds);
        host
    }

    /// An account that the directory does not know.
    pub fn stranger(&mut self) -> Author {
        self.authors += 1;
        Author::new(self.authors)
    }

    /// An account of that host of which the relay has heard nothing yet.
    pub fn author(&mut self, host: &Host) -> Author {
        let author = self.stranger();
        author.register(&self.plc, &host.pds);
        author
    }

    /// Stops the relay in order, or kills it, and starts it again. The consumer gets all from the
    /// beginning.
    pub fn restart(&mut self, kill: bool) {
        if kill {
            self.relay.kill();
        } else {
            assert!(self.relay.terminate().success());
        }
        self.relay.launch();
        self.consumer = Consumer::connect(self.relay.api, Some(0));
    }

    /// What has come out of an account, in order: a rev, `identity`, or a status.
    pub fn told(&self, author: &Author) -> Vec<String> {
        let frames = self.consumer.frames();
        let events = frames.iter().map(|frame| consumer::event(frame));
        let own = events.filter(|event| event.did == author.did);
        own.map(|event| match event.body {
            Body::Commit(body) => body.rev.to_owned(),
            Body::Sync(body) => format!("sync {}", body.rev),
            Body::Identity(_) => "identity".to_owned(),
            Body::Account(body) if body.active => body.status.unwrap_or("active").to_owned(),
            Body::Account(body) => body.status.unwrap_or("inactive").to_owned(),
        })
        .collect()
    }

    /// Waits until exactly this has come out of the account.
    pub fn wait_told(&self, author: &Author, told: &[impl AsRef<str>]) {
        let wanted: Vec<&str> = told.iter().map(AsRef::as_ref).collect();
        let got = self.watch(author, |got| got == wanted);
        assert_eq!(got, wanted, "{}", author.did);
    }

    /// Waits until an account's last word is this.
    pub fn wait_last(&self, author: &Author, last: &str) {
        let got = self.watch(author, |got| got.last().is_some_and(|word| word == last));
        assert_eq!(got.last().map(String::as_str), Some(last), "{}: {got:?}", author.did);
    }

    /// What has come out of the account when that is enough, or the patience is over.
    fn watch(&self, author: &Author, enough: impl Fn(&[String]) -> bool) -> Vec<String> {
        let deadline = Instant::now() + patience();
        loop {
            let got = self.told(author);
            if enough(&got) || Instant::now() >= deadline {
                return got;
            }
            thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// How many frames were refused for the reason, at least.
    pub fn wait_refused(&self, reason: &str, count: u64) {
        let label = format!("reason=\"{reason}\"");
        self.relay.wait_for_metric("relayered_accounts_refusals_total", &label, count as f64);
    }

    /// The host's record in the admin API.
    pub fn row(&self, host: &Host) -> Value {
        let list = self.relay.admin("GET", "/admin/pds/list", "").json();
        let hosts = list.as_array().unwrap();
        let row = hosts.iter().find(|row| row["Host"] == host.pds.hostname().as_str());
        row.cloned().unwrap_or(Value::Null)
    }

    pub fn host_status(&self, host: &Host) -> Value {
        let hostname = host.pds.hostname().replace(':', "%3A");
        let target = format!("/xrpc/com.atproto.sync.getHostStatus?hostname={hostname}");
        self.relay.get(&target).json()
    }

    /// Waits until the relay counts so many accounts of the host.
    pub fn wait_accounts(&self, host: &Host, count: u64) {
        eventually(&format!("{count} accounts, not {}", self.host_status(host)), || {
            (self.host_status(host)["accountCount"] == count).then_some(())
        });
    }

    /// What the relay tells anybody who asks about a host or DID.
    pub fn explain(&self, query: &str) -> Value {
        self.relay.get(&format!("/explain?{}", query.replace(':', "%3A"))).json()
    }

    /// Sets limits of a host: `per_second=5&repo_limit=3`.
    pub fn set_limits(&self, host: &Host, limits: &str) {
        let target = format!("/admin/pds/changeLimits?host={}&{limits}", host.pds.hostname());
        let reply = self.relay.admin("POST", &target, "");
        assert_eq!(reply.status, 200, "{reply:?}");
    }

    /// Asks as anybody may.
    pub fn request_crawl(&self, hostname: &str) -> http::Response {
        let body = json!({ "hostname": hostname }).to_string();
        let headers = [("Content-Type", "application/json")];
        let target = "/xrpc/com.atproto.sync.requestCrawl";
        http::request(self.relay.api, "POST", target, &headers, &body).unwrap()
    }
}

impl Host {
    /// A host that the relay has not heard of.
    pub fn start() -> Self {
        Self { pds: FakePds::start(), seq: 0 }
    }

    /// The event under the host's next number.
    pub fn frame(&mut self, kind: &str, body: &Value) -> (u64, Vec<u8>) {
        self.seq += 1;
        let mut body = body.clone();
        body["seq"] = self.seq.into();
        (self.seq, frames::event(kind, &body))
    }

    pub fn send(&mut self, kind: &str, body: &Value) {
        let (seq, frame) = self.frame(kind, body);
        self.pds.push(seq, frame);
    }

    /// The account's next commit; its rev.
    pub fn post(&mut self, author: &mut Author) -> String {
        let body = author.post();
        self.send("commit", &body);
        author.rev()
    }
}
