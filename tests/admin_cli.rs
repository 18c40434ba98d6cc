//! `relayered admin`, `pull-hosts` and `check-host`, as an operator types them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    fs,
    process::{Command, Stdio},
};

use harness::{ADMIN_KEY, Consumer, FakePds, FakePlc, Relay, corpus::Corpus, eventually, http};
use serde_json::{Value, json};

struct Said {
    code: i32,
    out: String,
    err: String,
}

fn run(args: &[&str], env: &[(&str, &str)]) -> Said {
    let directory = tempfile::TempDir::new().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_relayered"))
        .env_clear()
        .envs(env.iter().copied())
        .current_dir(directory.path())
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn try_admin(relay: &Relay, args: &[&str]) -> Said {
    let url = format!("http://{}", relay.api);
    run(&[&["admin"], args].concat(), &[("RELAY_URL", &url), ("RELAY_ADMIN_KEY", ADMIN_KEY)])
}

fn admin(relay: &Relay, args: &[&str]) -> String {
    let said = try_admin(relay, args);
    assert_eq!(said.code, 0, "{args:?}: {}{}", said.out, said.err);
    said.out
}

fn admin_json(relay: &Relay, args: &[&str]) -> Value {
    serde_json::from_str(&admin(relay, &[args, &["--json"]].concat())).unwrap()
}

#[test]
fn hosts_are_added_from_a_file_and_operated() {
    let relay = Relay::start(&FakePlc::start(), &[]);
    let hosts = [FakePds::start(), FakePds::start()];
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "# hosts\n{}\n\n{} # twice\n{}\nlocalhost:{}\n",
        hosts[0].hostname(),
        hosts[1].hostname(),
        hosts[0].hostname(),
        gone.port()
    );
    fs::write(file.path(), text).unwrap();
    let path = file.path().to_str().unwrap();
    let said = try_admin(
        &relay,
        &["host", "add", "--file", path, "--account-limit", "70", "--per-hour", "9"],
    );
    assert_eq!(said.code, 2, "{}{}", said.out, said.err);
    assert!(said.err.contains("1 of 3 hosts were not added"), "{}", said.err);
    assert_eq!(said.out.matches(": added").count(), 2, "{}", said.out);
    for host in &hosts {
        host.wait_for_connection(1);
    }

    let list = admin_json(&relay, &["host", "list"]);
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert!(list.as_array().unwrap().iter().all(|host| host["RepoLimit"] == 70));
    assert_eq!(list[0]["PerHourEventRate"]["Max"], 9);
    let name = hosts[0].hostname();
    assert!(admin(&relay, &["host", "connected"]).lines().any(|line| line == name));
    admin(&relay, &["host", "limits", &name, "--per-second", "3"]);
    assert_eq!(admin_json(&relay, &["host", "detail", &name])["PerSecondEventRate"]["Max"], 3);
    admin(&relay, &["host", "limits", &name, "--default-rates", "--silence-alerts", "true"]);
    let detail = admin_json(&relay, &["host", "detail", &name]);
    assert_ne!(detail["PerSecondEventRate"]["Max"], 3);
    assert_eq!(detail["AccountLimitAlertsSilenced"], true);
    assert_eq!(try_admin(&relay, &["host", "limits", &name]).code, 64);
    admin(&relay, &["host", "block", &name]);
    hosts[0].wait_for_hang_up();
    let banned = admin(&relay, &["host", "list", "--status", "banned"]);
    let lines: Vec<&str> = banned.lines().collect();
    assert_eq!(lines.len(), 2, "{banned}");
    assert!(lines[0].starts_with("HOST") && lines[1].starts_with(&name), "{banned}");
    assert!(admin(&relay, &["host", "list", "-q", "no-such"]).contains("(none)"));
    let detail = admin(&relay, &["host", "detail", &name]);
    assert!(detail.contains("Blocked") && detail.contains(&name), "{detail}");
    admin(&relay, &["host", "unblock", &name]);
    hosts[0].wait_for_connection(2);
    admin(&relay, &["host", "reset-cursor", &name, "--cursor", "0"]);
    hosts[0].wait_for_connection(3);
    admin(&relay, &["host", "strictness", &name, "lenient"]);
    assert_eq!(admin_json(&relay, &["host", "detail", &name])["Strictness"], "lenient");
    eventually("the host to be connected", || {
        (try_admin(&relay, &["host", "disconnect", &name]).code == 0).then_some(())
    });
}

#[test]
fn domains_settings_and_consumers() {
    let relay = Relay::start(&FakePlc::start(), &[]);
    admin(&relay, &["domain", "ban", "evil.example"]);
    assert_eq!(admin(&relay, &["domain", "list"]), "evil.example\n");
    let again = try_admin(&relay, &["domain", "ban", "evil.example"]);
    assert_eq!(again.code, 2);
    assert!(again.err.contains("banned already"), "{}", again.err);
    admin(&relay, &["domain", "unban", "evil.example"]);
    assert_eq!(admin_json(&relay, &["domain", "list"]), json!({ "banned_domains": [] }));

    admin(&relay, &["trusted-domain", "add", "*.good.example"]);
    assert!(admin(&relay, &["trusted-domain", "list"]).contains("*.good.example"));
    admin(&relay, &["trusted-domain", "remove", "*.good.example"]);
    assert!(!admin(&relay, &["trusted-domain", "list"]).contains("*.good.example"));

    admin(&relay, &["settings", "set", "new_hosts_per_day=9", "crawl_enabled=false"]);
    let settings = admin(&relay, &["settings", "show"]);
    assert!(settings.contains("new_hosts_per_day") && settings.contains('9'), "{settings}");
    assert_eq!(relay.admin("GET", "/admin/subs/perDayLimit", "").json(), json!({ "limit": 9 }));
    assert_eq!(try_admin(&relay, &["settings", "set", "nonsense"]).code, 64);

    let consumer = Consumer::connect(relay.api, None);
    let id = eventually("the consumer to be listed", || {
        admin_json(&relay, &["consumers", "list"])[0]["id"].as_u64()
    });
    assert!(admin(&relay, &["consumers", "list"]).starts_with("ID"));
    admin(&relay, &["consumers", "kick", &id.to_string()]);
    consumer.wait_for_end();
    assert_eq!(try_admin(&relay, &["consumers", "kick", "999999"]).code, 2);

    let audit = admin_json(&relay, &["audit", "--limit", "1000"]).to_string();
    for action in ["banDomain", "unbanDomain", "consumers/kick"] {
        assert!(audit.contains(action), "{action} in {audit}");
    }
}

#[test]
fn accounts_are_taken_down_and_back() {
    let corpus = Corpus::load();
    let (plc, hosts) = corpus.network();
    let relay = Relay::start(&plc, &["--trusted-domains", "*"]);
    relay.add_host(&hosts[0]);
    hosts[0].push_all(corpus.hosts[0].iter().cloned());
    let frames = Consumer::connect(relay.api, Some(0)).wait_for(corpus.hosts[0].len());
    let did = harness::consumer::event(&frames[0]).did.to_owned();
    assert_eq!(admin(&relay, &["account", "list"]), "");
    admin(&relay, &["account", "takedown", &did]);
    assert_eq!(admin(&relay, &["account", "list"]), format!("{did}\n"));
    assert!(admin(&relay, &["account", "status", &did]).contains("takendown"));
    admin(&relay, &["account", "reverse", &did]);
    assert_eq!(admin(&relay, &["account", "list"]), "");

    let unknown = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";
    assert_eq!(try_admin(&relay, &["account", "takedown", unknown]).code, 2);
    admin(&relay, &["account", "takedown", "--force", unknown]);
    assert_eq!(admin(&relay, &["account", "list"]), format!("{unknown}\n"));
    assert!(!admin(&relay, &["explain", &did]).is_empty());
}

#[test]
fn mistakes_have_their_exit_codes() {
    let relay = Relay::start(&FakePlc::start(), &[]);
    let url = format!("http://{}", relay.api);
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("http://{gone}");
    let key = ("RELAY_ADMIN_KEY", ADMIN_KEY);
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], i32, &'a str);
    let cases: &[Case<'_>] = &[
        (&["admin", "host", "list"], &[("RELAY_URL", &url)], 64, "no admin key"),
        (&["admin", "host", "list"], &[("RELAY_URL", &url), ("RELAY_ADMIN_KEY", "x")], 77, "key"),
        (&["admin", "host", "list"], &[("RELAY_URL", &nobody), key], 69, "can't be reached"),
        (&["admin", "host", "list", "--relay-url", "ftp://x"], &[key], 64, "ftp://x"),
        (&["admin", "host", "frobnicate"], &[key], 64, "relayered admin --help"),
        (&["admin", "host", "block", "-x.example"], &[("RELAY_URL", &url), key], 64, ""),
        (
            &["admin", "host", "block", "no.such.example.com"],
            &[("RELAY_HOST", &url), key],
            2,
            "no.such",
        ),
        (&["pull-hosts", "--batch-size", "0"], &[key], 64, "--batch-size"),
        (&["check-host"], &[], 64, "check-host --help"),
    ];
    for (args, env, code, text) in cases {
        let said = run(args, env);
        assert_eq!(said.code, *code, "{args:?}: {}{}", said.out, said.err);
        assert!(said.err.contains(text), "{args:?}: {}", said.err);
        assert!(!said.err.contains(ADMIN_KEY), "{args:?}: {}", said.err);
    }
}

/// Another relay's list of hosts, on pages of two.
fn other_relay(hosts: Vec<Value>) -> std::net::SocketAddr {
    http::serve(move |request, stream| {
        let begin: usize = request.query("cursor").map_or(0, |cursor| cursor.parse().unwrap());
        let page: Vec<&Value> = hosts.iter().skip(begin).take(2).collect();
        let mut reply = json!({ "hosts": page });
        if begin + 2 < hosts.len() {
            reply["cursor"] = json!((begin + 2).to_string());
        }
        http::reply(stream, 200, "application/json", &reply.to_string());
    })
}

#[test]
fn hosts_are_pulled_from_another_relay() {
    let relay = Relay::start(&FakePlc::start(), &[]);
    let hosts: Vec<FakePds> = (0..4).map(|_| FakePds::start()).collect();
    let listed = |host: &FakePds, status: &str, accounts: u64| json!({ "hostname": host.hostname(), "status": status, "accountCount": accounts, "seq": 5 });
    relay.add_host(&hosts[0]);
    let other = other_relay(vec![
        listed(&hosts[0], "active", 5),
        listed(&hosts[1], "active", 1),
        listed(&hosts[2], "idle", 9),
        listed(&hosts[3], "offline", 9),
        json!({ "hostname": "never.example.com", "status": "active" }),
    ]);
    let (from, own) = (format!("http://{other}"), format!("http://{}", relay.api));
    let pull = |args: &[&str]| {
        let env = [("RELAY_URL", own.as_str()), ("RELAY_ADMIN_KEY", ADMIN_KEY)];
        run(&[&["pull-hosts", "--relay-host", &from, "--batch-size", "2"], args].concat(), &env)
    };
    let dry = pull(&["--dry-run"]);
    let wanted = format!("{}\n{}\n", hosts[2].hostname(), hosts[1].hostname());
    assert_eq!((dry.code, dry.out.as_str()), (0, wanted.as_str()), "{}", dry.err);
    assert!(dry.err.contains("5 hosts, of which 3 match; 2 are to be added"), "{}", dry.err);
    let some = pull(&["--min-accounts", "5", "--account-limit", "12"]);
    assert_eq!(some.code, 0, "{}{}", some.out, some.err);
    hosts[2].wait_for_connection(1);
    let rest = pull(&["--limit", "9"]);
    assert_eq!(rest.code, 0, "{}", rest.err);
    hosts[1].wait_for_connection(1);
    assert_eq!(pull(&[]).out, "");
    let list = admin_json(&relay, &["host", "list", "-q", &hosts[2].hostname()]);
    assert_eq!(list[0]["RepoLimit"], 12);
    assert!(hosts[3].cursors().is_empty());
}

#[test]
fn a_host_is_looked_at_without_a_relay() {
    let (corpus, pds) = (Corpus::load(), FakePds::start());
    let look = |args: &[&str]| run(&[&["check-host"], args].concat(), &[]);
    pds.push_all(corpus.hosts[0].iter().take(1).cloned());
    let good = look(&["--allow-insecure-hosts", &pds.hostname()]);
    assert_eq!(good.code, 0, "{}{}", good.out, good.err);
    assert_eq!(good.out.matches("ok ").count(), 4, "{}", good.out);
    let first = format!("seq {}", corpus.hosts[0][0].0);
    assert!(good.out.contains(&first), "{}", good.out);

    let refused = look(&[&pds.hostname()]);
    assert_eq!(refused.code, 2, "{}", refused.out);
    pds.set_server_header("x (atproto-relay)");
    let relay = look(&["--allow-insecure-hosts", "--json", &pds.hostname()]);
    assert_eq!(relay.code, 2);
    let last: Value = serde_json::from_str(relay.out.lines().last().unwrap()).unwrap();
    assert_eq!(
        (last["check"].as_str(), last["ok"].as_bool()),
        (Some("describeServer"), Some(false))
    );
    pds.set_server_header("fake-pds");
    pds.set_refuse(Some(503));
    let down = look(&["--allow-insecure-hosts", &pds.hostname()]);
    assert!(down.code == 2 && down.out.contains("503"), "{}", down.out);
}

/// Each route under `/admin` of the API's own description, and the command that uses it.
const COMMANDS: &[(&str, &str)] = &[
    ("POST /admin/pds/requestCrawl", "host add"),
    ("GET /admin/pds/list", "host list"),
    ("GET /admin/pds/get", "host detail"),
    ("POST /admin/pds/block", "host block"),
    ("POST /admin/pds/unblock", "host unblock"),
    ("POST /admin/pds/resetCursor", "host reset-cursor"),
    ("GET /admin/subs/getUpstreamConns", "host connected"),
    ("POST /admin/subs/killUpstream", "host disconnect"),
    ("POST /admin/pds/changeLimits", "host limits"),
    ("POST /admin/pds/setStrictness", "host strictness"),
    ("GET /admin/subs/listDomainBans", "domain list"),
    ("POST /admin/subs/banDomain", "domain ban"),
    ("POST /admin/subs/unbanDomain", "domain unban"),
    ("GET /admin/pds/listTrustedDomains", "trusted-domain list"),
    ("POST /admin/pds/addTrustedDomain", "trusted-domain add"),
    ("POST /admin/pds/removeTrustedDomain", "trusted-domain remove"),
    ("POST /admin/repo/takeDown", "account takedown"),
    ("POST /admin/repo/reverseTakedown", "account reverse"),
    ("GET /admin/repo/takedowns", "account list"),
    ("GET /admin/repo/get", "account status"),
    ("GET /admin/consumers/list", "consumers list"),
    ("POST /admin/consumers/kick", "consumers kick"),
    ("GET /admin/settings", "settings show"),
    ("POST /admin/settings", "settings set"),
    // Single settings, as older tools read and write them.
    ("GET /admin/subs/getEnabled", "settings show"),
    ("POST /admin/subs/setEnabled", "settings set"),
    ("GET /admin/subs/perDayLimit", "settings show"),
    ("POST /admin/subs/setPerDayLimit", "settings set"),
    ("GET /admin/siblings/list", "siblings list"),
    ("POST /admin/siblings/retry", "siblings retry"),
    ("GET /admin/discovery/list", "discovery list"),
    ("POST /admin/discovery/run", "discovery run"),
    ("GET /admin/discovery/refused", "discovery refused"),
    ("GET /admin/audit", "audit"),
    ("GET /admin/stats", "status stats"),
    ("GET /admin/log", "status log"),
    ("GET /admin/signatures", "status signatures"),
];

/// What older tools know of a mirror of repositories, which a relay of today does not keep.
const WITHOUT_COMMAND: [&str; 6] = [
    "POST /admin/repo/compactAll",
    "POST /admin/repo/compact",
    "POST /admin/repo/reset",
    "POST /admin/repo/verify",
    "GET /admin/pds/resync",
    "POST /admin/pds/resync",
];

#[test]
fn every_route_of_the_admin_api_has_a_command() {
    let relay = Relay::start(&FakePlc::start(), &[]);
    let document = relay.get("/openapi.json").json();
    let mut routes: Vec<String> = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let methods = methods.as_object().unwrap().keys().filter(|_| path.starts_with("/admin/"));
        routes.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
    }
    let known = |route: &String| {
        COMMANDS.iter().any(|(of, _)| of == route) || WITHOUT_COMMAND.contains(&route.as_str())
    };
    let unknown: Vec<&String> = routes.iter().filter(|route| !known(route)).collect();
    assert!(unknown.is_empty(), "routes without a command: {unknown:?}");
    assert_eq!(routes.len(), COMMANDS.len() + WITHOUT_COMMAND.len(), "{routes:?}");
    for (route, command) in COMMANDS {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let said = try_admin(&relay, &words);
        let usage = format!("admin {command}");
        assert!(said.code == 0 && said.out.contains(&usage), "{route}: {}{}", said.out, said.err);
    }
}

#[test]
fn everything_that_only_tells_is_a_table_or_json() {
    let relay = Relay::start(&FakePlc::start(), &["--sibling-relays", "https://a.example.com"]);
    for (command, word) in [
        ("host list", "(none)"),
        ("host connected", ""),
        ("domain list", ""),
        ("trusted-domain list", "*"),
        ("account list", ""),
        ("consumers list", "(none)"),
        ("settings show", "discovery_interval_seconds"),
        ("siblings list", "SIBLING"),
        ("discovery list", "(none)"),
        ("discovery refused", "(none)"),
        ("audit", "(none)"),
        ("status stats", "newest_seq"),
        ("status log", "window_seconds"),
        ("status signatures", "in_use"),
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        let text = admin(&relay, &words);
        assert!(text.contains(word) && !text.contains('{'), "{command}: {text}");
        let json = admin(&relay, &[words.as_slice(), &["--json"]].concat());
        for line in json.lines() {
            serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{command}: {json}"));
        }
    }
}
