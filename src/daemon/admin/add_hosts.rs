//! `relayered admin host add`: many hosts, a few at a time, with a bar that shows how far it is.

use std::{collections::HashSet, fs, io, io::Read as _};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use super::{Client, args::HostAdd, client::Failure, say};
use crate::fatal::{Code, Fatal};

/// A relay looks at that many hosts at once without turning any away.
const PARALLEL_MAX: usize = 32;

pub(super) async fn run(client: &Client, args: HostAdd, as_json: bool) -> Result<(), Fatal> {
    let hosts = hosts(&args)?;
    if hosts.is_empty() {
        return Err(Fatal::new(Code::Usage, "no host is given")
            .remedy("Name hosts, or a file of them with --file"));
    }
    add_all(client, &hosts, &args.limits().to_json(), args.parallel, as_json).await
}

/// Asks the relay for each of the hosts. `limits` are set of all of them.
pub(crate) async fn add_all(
    client: &Client,
    hosts: &[String],
    limits: &Map<String, Value>,
    parallel: usize,
    as_json: bool,
) -> Result<(), Fatal> {
    let bar = progress_bar(hosts.len());
    let mut outcomes = Outcomes { as_json, failed: 0, bar: bar.clone() };
    let mut waiting = hosts.iter();
    let mut asked = JoinSet::new();
    let parallel = parallel.clamp(1, PARALLEL_MAX);
    loop {
        while asked.len() < parallel
            && let Some(host) = waiting.next()
        {
            let (client, host, mut body) = (client.clone(), host.clone(), limits.clone());
            body.insert("hostname".to_owned(), json!(host));
            asked.spawn(async move {
                let result = client.post("/admin/pds/requestCrawl", &Value::Object(body)).await;
                (host, result)
            });
        }
        let Some(done) = asked.join_next().await else { break };
        let (host, result) = done.map_err(|error| Fatal::of(Code::Software, &error))?;
        outcomes.take(&host, result)?;
    }
    bar.finish_and_clear();
    outcomes.end(hosts.len())
}

struct Outcomes {
    as_json: bool,
    failed: usize,
    bar: ProgressBar,
}

impl Outcomes {
    /// A host that is refused is told and left; what would meet all others too ends the command.
    fn take(&mut self, host: &str, result: Result<Value, Failure>) -> Result<(), Fatal> {
        let refusal = match result {
            Ok(_) => None,
            Err(Failure::Refused { name, message, .. }) => Some((name, message)),
            Err(failure) => return Err(failure.into()),
        };
        self.failed += usize::from(refusal.is_some());
        self.bar.inc(1);
        self.bar.suspend(|| match (&refusal, self.as_json) {
            (None, true) => say(&json!({ "host": host, "outcome": "added" }).to_string()),
            (Some((error, message)), true) => say(&json!({
                "host": host, "outcome": "refused", "error": error, "message": message
            })
            .to_string()),
            (None, false) => say(&format!("{host}: added")),
            (Some((_, message)), false) => say(&format!("{host}: {message}")),
        });
        Ok(())
    }

    fn end(&self, all: usize) -> Result<(), Fatal> {
        match self.failed {
            0 => Ok(()),
            failed => {
                let message = format!("{failed} of {all} hosts were not added");
                Err(Fatal::new(Code::Refused, message))
            }
        }
    }
}

/// On standard error, and only if that is a terminal.
fn progress_bar(length: usize) -> ProgressBar {
    let bar = ProgressBar::new(length as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} hosts, {eta} left") {
        bar.set_style(style);
    }
    bar
}

/// Those named and those of the file, each once.
fn hosts(args: &HostAdd) -> Result<Vec<String>, Fatal> {
    let mut text = args.hosts.join("\n");
    if let Some(file) = &args.file {
        text.push('\n');
        text.push_str(&read(file).map_err(|error| {
            Fatal::new(Code::Usage, format!("{file}: {error}")).remedy("Check --file")
        })?);
    }
    let mut seen = HashSet::new();
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let hosts = lines.filter(|host| !host.is_empty() && seen.insert((*host).to_owned()));
    Ok(hosts.map(str::to_owned).collect())
}

fn read(file: &str) -> io::Result<String> {
    if file != "-" {
        return fs::read_to_string(file);
    }
    let mut text = String::new();
    io::stdin().lock().read_to_string(&mut text)?;
    Ok(text)
}
