//! The dashboard in a real browser, against the real binary with a host, accounts and a consumer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{
    env,
    io::Write,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use harness::{ADMIN_KEY, Consumer, FakePds, FakePlc, Relay, author::Author, json, raw, skipped};

/// The script and the browser, if both are installed.
fn installed() -> Option<(PathBuf, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let parts = env::var_os("RELAYERED_REALPARTS")
        .map_or_else(|| root.join("target/realparts"), PathBuf::from);
    let folder = parts.join("browser");
    let browser = env::var_os("CHROMIUM").map_or_else(|| "/usr/bin/chromium".into(), PathBuf::from);
    let there = folder.join("node_modules/playwright-core").exists() && browser.exists();
    there.then(|| (folder.join("dashboard.mjs"), browser))
}

#[test]
fn an_operator_finds_and_does_everything_on_the_page() {
    let Some((script, browser)) = installed() else {
        skipped(
            "dashboard",
            "apt-get install chromium; tests/realparts/install-browser.sh DIR, \
             RELAYERED_REALPARTS=DIR",
        );
        return;
    };
    let (plc, pds) = (FakePlc::start(), FakePds::start());
    let relay = Relay::start(&plc, &[]);
    relay.add_host(&pds);
    let mut author = Author::new(1);
    author.register(&plc, &pds);
    let mut post = author.post();
    post["seq"] = 1.into();
    pds.push(1, json::event("commit", &post));
    Consumer::connect(relay.api, Some(0)).wait_for(1);
    let mut consumer = TcpStream::connect(relay.api).unwrap();
    let headers = raw::UPGRADE.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
    let name = "User-Agent: <img src=x onerror=alert(1)>\r\n";
    let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n{name}{headers}\r\n", raw::SUBSCRIBE);
    consumer.write_all(request.as_bytes()).unwrap();
    let output = Command::new("node")
        .arg(script)
        .args([&format!("http://{}", relay.api), ADMIN_KEY, &pds.hostname(), &author.did])
        .args(env::var("RELAYERED_TEST_SCREENSHOTS").ok())
        .env("CHROMIUM", browser)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let faults = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{faults}");
}
