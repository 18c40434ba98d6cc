//! The relay under test: a child process of ours, or one that runs already.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Sender};
use serde_json::json;
use tempfile::TempDir;

use super::{DemoError, RelayPlace};
use crate::client;

/// First argument with which our executable is the relay.
pub const RELAY_COMMAND: &str = "relayed";
const ADMIN_KEY: &str = "loadgen-demo";
const START_PATIENCE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// A relay that answers.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) api: SocketAddr,
    pub(super) pid: Option<u32>,
    metrics: Option<String>,
    admin_key: String,
    child: Option<Child>,
    _data: Option<TempDir>,
}

impl Relay {
    pub(super) fn reach(place: &RelayPlace, plc_url: &str) -> Result<Self, DemoError> {
        match place {
            RelayPlace::Child { verbose, arguments } => {
                Self::start(plc_url, *verbose, arguments).map_err(DemoError::Start)
            }
            RelayPlace::Running { api, admin_key, metrics, pid } => {
                let (authority, _) = client::split_url(api).map_err(DemoError::Relay)?;
                Ok(Self {
                    api: client::resolve(authority).map_err(DemoError::Relay)?,
                    pid: *pid,
                    metrics: metrics.clone(),
                    admin_key: admin_key.clone(),
                    child: None,
                    _data: None,
                })
            }
        }
    }

    /// Runs our own executable as the relay, in a folder of its own.
    fn start(plc_url: &str, verbose: bool, arguments: &[String]) -> io::Result<Self> {
        let data = TempDir::with_prefix("loadgen-relay-")?;
        let mut child = Command::new(std::env::current_exe()?)
            .current_dir(data.path())
            .args([RELAY_COMMAND, "--api-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"])
            .args(["--admin-key", ADMIN_KEY, "--plc-host", plc_url, "--allow-insecure-hosts"])
            .args(["--default-account-limit", "100000000", "--data-dir"])
            .arg(data.path())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take();
        let mut relay = Self {
            api: SocketAddr::from(([127, 0, 0, 1], 0)),
            pid: Some(child.id()),
            metrics: None,
            admin_key: ADMIN_KEY.into(),
            child: Some(child),
            _data: Some(data),
        };
        let stderr = stderr.ok_or_else(|| io::Error::other("no pipe to the relay"))?;
        let (listening, heard) = channel::bounded(1);
        thread::Builder::new()
            .name("lg-relay-log".into())
            .spawn(move || read_log(stderr, verbose, &listening))?;
        let line = heard
            .recv_timeout(START_PATIENCE)
            .map_err(|_too_late| io::Error::other("the relay did not say where it listens"))?;
        relay.api = address_after(&line, "api=")?;
        relay.metrics = Some(format!("http://{}/metrics", address_after(&line, "metrics=")?));
        Ok(relay)
    }

    /// Asks the relay to subscribe to a host.
    pub(super) fn request_crawl(&self, hostname: &str) -> Result<(), DemoError> {
        let url = format!("http://{}/admin/pds/requestCrawl", self.api);
        let body = json!({ "hostname": hostname }).to_string();
        let answer = client::post(&url, Some(&self.admin_key), &body).map_err(DemoError::Relay)?;
        if answer.status == 200 {
            return Ok(());
        }
        let (status, body) = (answer.status, answer.body);
        Err(DemoError::Crawl { hostname: hostname.into(), status, body })
    }

    /// Frames that the relay did not pass on, with their reasons; empty if it does not tell.
    pub(super) fn refusals(&self) -> Vec<(String, u64)> {
        let Some(answer) = self.metrics.as_ref().and_then(|url| client::get(url).ok()) else {
            return Vec::new();
        };
        answer.body.lines().filter_map(refusal).filter(|(_, count)| *count > 0).collect()
    }

    /// Asks our child to stop; gives how it ended and how long that took. `None` if it is not ours.
    pub(super) fn stop(&mut self) -> Option<(io::Result<ExitStatus>, Duration)> {
        let mut child = self.child.take()?;
        let start = Instant::now();
        let asked = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        let ticks = channel::tick(Duration::from_millis(10));
        while asked.as_ref().is_ok_and(ExitStatus::success) && start.elapsed() < STOP_PATIENCE {
            match child.try_wait() {
                Ok(None) => drop(ticks.recv()),
                Ok(Some(status)) => return Some((Ok(status), start.elapsed())),
                Err(error) => return Some((Err(error), start.elapsed())),
            }
        }
        drop(child.kill());
        Some((child.wait(), start.elapsed()))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Reads the relay's log to its end, tells the line with its addresses, and shows the lines that
/// are wanted.
fn read_log(stderr: ChildStderr, verbose: bool, listening: &Sender<String>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if verbose || line.contains("ERROR") || line.contains("WARN") || line.contains("panicked") {
            eprintln!("relay: {line}");
        }
        if line.contains("listening api=") {
            drop(listening.try_send(line));
        }
    }
}

fn address_after(line: &str, key: &str) -> io::Result<SocketAddr> {
    let address = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix(key))
        .and_then(|text| text.parse::<SocketAddr>().ok());
    address.ok_or_else(|| io::Error::other(format!("no address behind {key} in: {line}")))
}

/// `relayered_accounts_refusals_total{reason="rev-stale"} 9`
fn refusal(line: &str) -> Option<(String, u64)> {
    let rest = line.strip_prefix("relayered_accounts_refusals_total{reason=\"")?;
    let (reason, count) = rest.split_once("\"} ")?;
    Some((reason.to_owned(), count.trim().parse::<f64>().ok()? as u64))
}

/// Waits for a condition, looked at every few milliseconds; false if the patience ends first.
pub(super) fn wait_until(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    let ticks = channel::tick(Duration::from_millis(5));
    while !condition() {
        if Instant::now() >= deadline || ticks.recv().is_err() {
            return condition();
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let line = "INFO relayered: listening api=127.0.0.1:40001 metrics=127.0.0.1:40002";
        assert_eq!(address_after(line, "api=").unwrap().port(), 40_001);
        assert_eq!(address_after(line, "metrics=").unwrap().port(), 40_002);
        assert!(address_after(line, "other=").is_err());
        let line = "relayered_accounts_refusals_total{reason=\"rev-stale\"} 9";
        assert_eq!(refusal(line), Some(("rev-stale".into(), 9)));
        assert_eq!(refusal("relayered_consumer_connections_count 1"), None);
    }
}
