//! `goat`, the ecosystem's command line tool, against the real binary: every command of its `relay`
//! and `relay admin` groups, and its own checks of the firehose.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    env,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use harness::{ADMIN_KEY, Consumer, FakePds, FakePlc, Relay, corpus::Corpus, eventually, skipped};

/// Where the tool asks for DIDs: built in by `realparts/install-goat.sh`.
const PLC: &str = "127.82.69.76:2582";

struct Goat {
    program: PathBuf,
    relay: SocketAddr,
    home: tempfile::TempDir,
}

struct Said {
    ok: bool,
    out: String,
    err: String,
}

impl Said {
    fn lines(&self) -> Vec<Vec<&str>> {
        self.out.lines().map(|line| line.split('\t').collect()).collect()
    }
}

impl Goat {
    fn command(&self, args: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .current_dir(self.home.path())
            .env("HOME", self.home.path())
            .env("RELAY_HOST", format!("http://{}", self.relay))
            .env("RELAY_ADMIN_PASSWORD", ADMIN_KEY)
            .args(args.split_ascii_whitespace())
            .stdin(Stdio::null());
        command
    }

    fn try_run(&self, args: &str) -> Said {
        let output = self.command(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { ok: output.status.success(), out: text(output.stdout), err: text(output.stderr) }
    }

    fn run(&self, args: &str) -> Said {
        let said = self.try_run(args);
        assert!(said.ok, "goat {args}: {}{}", said.out, said.err);
        said
    }
}

fn program() -> Option<PathBuf> {
    let beside = env::var_os("RELAYERED_REALPARTS").map(|dir| Path::new(&dir).join("bin/goat"));
    beside.filter(|path| path.exists())
}

/// The directory at the one address that the tool knows; another run of these tests may hold it.
fn directory() -> FakePlc {
    let listener = eventually("the directory's address to be free", || TcpListener::bind(PLC).ok());
    FakePlc::start_on(listener)
}

/// The tool, a relay that has taken in the corpus, and what it comes from.
struct Network {
    plc: FakePlc,
    goat: Goat,
    relay: Relay,
    corpus: Corpus,
    hosts: [FakePds; 3],
}

impl Network {
    fn start(test: &str) -> Option<Self> {
        let Some(program) = program() else {
            skipped(test, "tests/realparts/install-goat.sh DIR, then RELAYERED_REALPARTS=DIR");
            return None;
        };
        let (plc, corpus) = (directory(), Corpus::load());
        let hosts = corpus.fill(&plc);
        let relay = Relay::start(&plc, &["--trusted-domains", "*"]);
        for (index, host) in hosts.iter().enumerate() {
            relay.add_host(host);
            host.push_all(corpus.hosts[index].iter().cloned());
        }
        Consumer::connect(relay.api, Some(0)).wait_for(corpus.event_count());
        let home = tempfile::TempDir::new().unwrap();
        let goat = Goat { program, relay: relay.api, home };
        Some(Self { plc, goat, relay, corpus, hosts })
    }
}

#[test]
fn every_command_of_goat_relay_works() {
    let Some(network) = Network::start("every_command_of_goat_relay_works") else { return };
    reads_the_public_api(&network);
    operates_hosts(&network);
    operates_domains(&network);
    operates_accounts(&network);
    sees_consumers(&network);
    verifies_the_firehose(&network);
}

fn reads_the_public_api(network: &Network) {
    let Network { goat, relay, corpus, hosts, .. } = network;
    // The accounts are in SQL half a second after they are in the stream.
    let accounts = eventually("all accounts to be listed", || {
        let said = goat.run("relay account list");
        (said.out.lines().count() == corpus.dids().count()).then_some(said)
    });
    assert!(accounts.lines().iter().all(|row| row.len() == 3 && row[0].starts_with("did:")));
    assert!(accounts.lines().iter().any(|row| row[1] == "active" && row[2].len() == 13));
    let json = goat.run("relay account list --json");
    assert_eq!(json.out.lines().count(), corpus.dids().count());

    let active = accounts.lines().into_iter().find(|row| row[1] == "active").unwrap()[0].to_owned();
    let status = goat.run(&format!("relay account status {active}"));
    assert_eq!(status.lines()[0][..2], [active.as_str(), "active"]);
    let unknown = goat.try_run("relay account status did:plc:aaaaaaaaaaaaaaaaaaaaaaaa");
    assert!(!unknown.ok && unknown.err.contains("RepoNotFound"), "{}", unknown.err);

    let posts = goat.run("relay account list -c app.bsky.feed.post");
    assert!(posts.out.lines().all(|line| corpus.dids().any(|did| did == line)));

    let listed = goat.run("relay host list");
    assert_eq!(listed.out.lines().count(), hosts.len());
    for (index, host) in hosts.iter().enumerate() {
        let row = eventually("the host's seq to be told", || {
            let status = goat.run(&format!("relay host status {}", host.hostname()));
            let last = corpus.hosts[index].last().unwrap().0.to_string();
            let row: Vec<String> = status.lines()[0].iter().map(ToString::to_string).collect();
            (row[3] == last).then_some(row)
        });
        assert_eq!(row[..2], [host.hostname(), "active".to_owned()]);
        assert!(row[2].parse::<usize>().unwrap() > 0, "{row:?}");
    }
    goat.run(&format!("relay host request-crawl {}", hosts[0].url()));
    goat.run(&format!("relay host add {}", hosts[0].hostname()));

    let same = goat.run(&format!("relay host diff http://{0} http://{0}", relay.api));
    assert_eq!(same.out, "");
    let verbose = goat.run(&format!("relay host diff --verbose http://{0} http://{0}", relay.api));
    assert_eq!(verbose.out.lines().count(), hosts.len(), "{}", verbose.out);
}

fn operates_hosts(network: &Network) {
    let Network { goat, hosts, .. } = network;
    let wrong = goat.command("relay admin host list").env("RELAY_ADMIN_PASSWORD", "x").output();
    assert!(!wrong.unwrap().status.success());
    let bearer = goat
        .command(&format!("relay admin --admin-bearer-token {ADMIN_KEY} host list"))
        .env_remove("RELAY_ADMIN_PASSWORD")
        .output();
    assert!(bearer.unwrap().status.success());

    let extra = FakePds::start();
    goat.run(&format!("relay admin host add {}", extra.hostname()));
    extra.wait_for_connection(1);
    let record = || {
        let said = goat.run("relay admin host list");
        assert_eq!(said.out.lines().count(), hosts.len() + 1);
        let line = said.out.lines().find(|line| line.contains(&extra.hostname())).unwrap();
        serde_json::from_str::<serde_json::Value>(line).unwrap()
    };
    assert_eq!(record()["Host"], extra.hostname());
    goat.run(&format!("relay admin host config --account-limit 77 {}", extra.hostname()));
    assert_eq!(record()["RepoLimit"], 77);
    goat.run(&format!("relay admin host block {}", extra.hostname()));
    extra.wait_for_hang_up();
    assert_eq!(record()["Blocked"], true);
    let banned = goat.try_run(&format!("relay host add {}", extra.hostname()));
    assert!(!banned.ok && banned.err.contains("HostBanned"), "{}", banned.err);
    goat.run(&format!("relay admin host block --reverse {}", extra.hostname()));
    extra.wait_for_connection(2);
    assert_eq!(record()["Blocked"], false);
}

fn operates_domains(network: &Network) {
    let goat = &network.goat;
    assert_eq!(goat.run("relay admin domain list").out, "");
    goat.run("relay admin domain ban evil.example");
    assert!(!goat.try_run("relay admin domain ban evil.example").ok);
    assert_eq!(goat.run("relay admin domain list").out, "evil.example\n");
    goat.run("relay admin domain ban --reverse evil.example");
    assert_eq!(goat.run("relay admin domain list").out, "");
}

fn operates_accounts(network: &Network) {
    let Network { plc, goat, corpus, hosts, .. } = network;
    assert_eq!(goat.run("relay admin account list").out, "");
    let did = corpus.dids().min().unwrap();
    // The tool looks handles up, for which there is no DNS here.
    let mut document: serde_json::Value =
        serde_json::from_str(&corpus.document(did, &hosts[0].url())).unwrap();
    document["alsoKnownAs"] = serde_json::json!([]);
    plc.put(did, document.to_string());
    goat.run(&format!("relay admin account takedown {did}"));
    assert_eq!(goat.run("relay admin account list").out, format!("{did}\n"));
    eventually("the take-down to be told", || {
        let said = goat.run(&format!("relay account status {did}"));
        (said.lines()[0][1] == "takendown").then_some(())
    });
    goat.run(&format!("relay admin account takedown --reverse {did}"));
    assert_eq!(goat.run("relay admin account list").out, "");
}

fn sees_consumers(network: &Network) {
    let Network { goat, relay, .. } = network;
    let _consumer = Consumer::connect(relay.api, None);
    let rows = eventually("the consumer to be listed", || {
        let said = goat.run("relay admin consumer list");
        (!said.out.is_empty()).then_some(said.out)
    });
    let row: serde_json::Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    for field in ["id", "remote_addr", "user_agent", "events_consumed", "connected_at"] {
        assert!(!row[field].is_null(), "{field} in {row}");
    }
}

/// The tool checks syntax, signatures and trees of every commit itself, and warns of what is wrong.
fn verifies_the_firehose(network: &Network) {
    let Network { goat, relay, .. } = network;
    let seen = Consumer::connect(relay.api, Some(0));
    // Whatever is in the log by now, up to an event that says where to stop.
    let last = eventually("the stream to be read", || {
        let frames = seen.frames();
        let last = harness::consumer::event(frames.last()?).seq;
        (last as f64 >= relay.metric("relayered_log_newest_seq", "")).then_some(last)
    });
    let mut child = goat
        .command("firehose --cursor 0 --verify-basic --verify-sig --verify-mst")
        .env("RELAY_HOST", format!("ws://{}", relay.api))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut commits = 0;
    let reached = lines.any(|line| {
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        commits += usize::from(event["type"] == "commit");
        event["payload"]["seq"].as_u64().unwrap() >= last
    });
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    let warnings = String::from_utf8(output.stderr).unwrap();
    assert!(reached && commits > 100, "{commits} commits; {warnings}");
    for word in ["WARN", "ERROR", "failed", "invalid"] {
        assert!(!warnings.contains(word), "{warnings}");
    }
}
