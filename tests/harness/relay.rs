//! The real binary, with a data folder that survives its restarts.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Instant,
};

use serde_json::json;
use tempfile::TempDir;

use super::{ADMIN_KEY, FakePds, FakePlc, eventually, http, patience};

#[derive(Default)]
struct Output {
    lines: Vec<String>,
    ended: bool,
}

pub struct Relay {
    child: Option<Child>,
    output: Arc<(Mutex<Output>, Condvar)>,
    directory: TempDir,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    prepare: fn(&mut Command),
    pub api: SocketAddr,
    pub metrics: SocketAddr,
}

impl Relay {
    /// Starts a relay that asks the given directory and takes hosts on loopback.
    pub fn start(plc: &FakePlc, arguments: &[&str]) -> Self {
        Self::start_prepared(&plc.url(), arguments, |_| {})
    }

    /// As [`Relay::start`], with a hook on the command (a seccomp filter, a limit).
    pub fn start_prepared(plc_url: &str, arguments: &[&str], prepare: fn(&mut Command)) -> Self {
        let mut relay = Self::spawn_prepared(plc_url, arguments, prepare);
        relay.wait_until_up();
        relay
    }

    /// Starts a relay on a folder in whose `data` something is already.
    pub fn start_in(directory: TempDir, plc_url: &str, arguments: &[&str]) -> Self {
        let mut relay = Self::new(directory, plc_url, arguments, |_| {});
        relay.launch();
        relay
    }

    /// A relay whose data folder is there, but which has not been started.
    pub fn unstarted(plc_url: &str, arguments: &[&str]) -> Self {
        let relay = Self::new(TempDir::new().unwrap(), plc_url, arguments, |_| {});
        std::fs::create_dir(relay.data_dir()).unwrap();
        relay
    }

    /// Starts a relay without waiting for it: [`Relay::wait_until_up`] does.
    pub fn spawn(plc: &FakePlc, arguments: &[&str]) -> Self {
        Self::spawn_prepared(&plc.url(), arguments, |_| {})
    }

    fn spawn_prepared(plc_url: &str, arguments: &[&str], prepare: fn(&mut Command)) -> Self {
        let mut relay = Self::new(TempDir::new().unwrap(), plc_url, arguments, prepare);
        relay.execute();
        relay
    }

    fn new(
        directory: TempDir,
        plc_url: &str,
        arguments: &[&str],
        prepare: fn(&mut Command),
    ) -> Self {
        let mut all = vec!["--plc-host".to_owned(), plc_url.to_owned()];
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let unbound = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            child: None,
            output: Arc::default(),
            directory,
            arguments: all,
            environment: Vec::new(),
            prepare,
            api: unbound,
            metrics: unbound,
        }
    }

    /// Starts the binary on the same data folder.
    ///
    /// # Panics
    /// If it is running, or does not come up.
    pub fn launch(&mut self) {
        self.execute();
        self.wait_until_up();
    }

    /// Replaces the arguments for the next launch.
    pub fn set_arguments(&mut self, plc: &FakePlc, arguments: &[&str]) {
        let own = ["--plc-host".to_owned(), plc.url()];
        self.arguments = own.into_iter().chain(arguments.iter().map(|&text| text.into())).collect();
    }

    /// Variables for the next launches.
    pub fn set_environment(&mut self, variables: Vec<(String, String)>) {
        self.environment = variables;
    }

    /// Starts the binary on the same data folder, without waiting for it.
    ///
    /// # Panics
    /// If it is running.
    pub fn execute(&mut self) {
        assert!(self.child.is_none(), "it is running");
        self.output = Arc::default();
        let mut command = Command::new(env!("CARGO_BIN_EXE_relayered"));
        command
            .env_clear()
            .current_dir(self.directory.path())
            .args(["--api-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"])
            .args(["--admin-key", ADMIN_KEY, "--data-dir"])
            .arg(self.directory.path().join("data"))
            .args(["--allow-insecure-hosts", "--log-level", "debug"])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if !self.arguments.iter().any(|argument| argument == "--trusted-domains") {
            // Otherwise hosts may send 50 events a second.
            command.args(["--trusted-domains", "*"]);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        (self.prepare)(&mut command);
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let output = Arc::clone(&self.output);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                output.0.lock().unwrap().lines.push(line);
                output.1.notify_all();
            }
            output.0.lock().unwrap().ended = true;
            output.1.notify_all();
        });
        self.child = Some(child);
    }

    /// # Panics
    /// If it does not come up.
    pub fn wait_until_up(&mut self) {
        let line = self.wait_for_line("listening api=");
        self.api = address_after(&line, "api=");
        self.metrics = address_after(&line, "metrics=");
    }

    pub fn data_dir(&self) -> std::path::PathBuf {
        self.directory.path().join("data")
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Waits for a line on stderr that contains the text.
    ///
    /// # Panics
    /// If the relay ends before, or the patience is over.
    pub fn wait_for_line(&self, text: &str) -> String {
        let deadline = Instant::now() + patience();
        let mut output = self.output.0.lock().unwrap();
        loop {
            if let Some(line) = output.lines.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero() && !output.ended,
                "no line with {text:?} from the relay:\n{}",
                output.lines.join("\n")
            );
            output = self.output.1.wait_timeout(output, left).unwrap().0;
        }
    }

    pub fn log(&self) -> String {
        // Also after a wait for a line that was in vain.
        let output = self.output.0.lock().unwrap_or_else(PoisonError::into_inner);
        output.lines.join("\n")
    }

    /// Asks the relay, as an admin, to crawl the host, and waits until it has connected.
    ///
    /// # Panics
    /// If the relay refuses.
    pub fn add_host(&self, pds: &FakePds) {
        let before = pds.cursors().len();
        let reply = self.request_crawl(&pds.hostname());
        assert_eq!(reply.status, 200, "{reply:?}\n{}", self.log());
        pds.wait_for_connection(before + 1);
    }

    pub fn request_crawl(&self, hostname: &str) -> http::Response {
        self.admin("POST", "/admin/pds/requestCrawl", &json!({ "hostname": hostname }).to_string())
    }

    /// A request with the admin key.
    pub fn admin(&self, method: &str, target: &str, body: &str) -> http::Response {
        let authorization = format!("Bearer {ADMIN_KEY}");
        let mut headers = vec![("Authorization", authorization.as_str())];
        if !body.is_empty() {
            headers.push(("Content-Type", "application/json"));
        }
        http::request(self.api, method, target, &headers, body).unwrap()
    }

    pub fn get(&self, target: &str) -> http::Response {
        http::request(self.api, "GET", target, &[], "").unwrap()
    }

    pub fn metrics_text(&self) -> String {
        http::request(self.metrics, "GET", "/metrics", &[], "").unwrap().body
    }

    /// The sum of a metric's values over those of its label sets which contain `labels`.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        self.metrics_text()
            .lines()
            .filter(|line| {
                line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                    && line.contains(labels)
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Waits until `name{labels}` is at least `value`.
    pub fn wait_for_metric(&self, name: &str, labels: &str, value: f64) {
        eventually(&format!("{name}{{{labels}}} >= {value}"), || {
            (self.metric(name, labels) >= value).then_some(())
        });
    }

    /// Waits until the log, to which nothing is added, is down to its `--replay-bytes`.
    pub fn wait_for_retention(&self, bytes: u32) {
        eventually(&format!("a log of {bytes} bytes"), || {
            (self.metric("relayered_log_size_bytes", "") <= f64::from(bytes)).then_some(())
        });
    }

    /// Memory in use, in bytes.
    pub fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<usize>().unwrap() * 1024
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    /// Waits until it has ended by itself.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        wait(self.child.take().unwrap())
    }

    /// SIGTERM, and the exit status.
    pub fn terminate(&mut self) -> ExitStatus {
        let child = self.child.take().unwrap();
        signal(&child, "TERM");
        wait(child)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            eprintln!("--- the relay's log:\n{}\n---", self.log());
        }
    }
}

fn signal(child: &Child, name: &str) {
    let status =
        Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

fn wait(mut child: Child) -> ExitStatus {
    eventually("the relay to exit", || child.try_wait().unwrap())
}

fn address_after(line: &str, key: &str) -> SocketAddr {
    let value = line.split(key).nth(1).and_then(|rest| rest.split_whitespace().next());
    let value = value.map(|value| value.trim_matches('"'));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {key} in {line:?}"))
}
