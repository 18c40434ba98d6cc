//! `relayered check-host`: a host as a relay meets it.

use argh::FromArgs;
use control::{
    checkup::{Finding, check_host},
    dial::DialPolicy,
};
use serde_json::json;

use crate::{
    admin::{block_on, say},
    fatal::{Code, Fatal},
};

/// Look at a PDS host as a relay would: name, addresses, describeServer, stream. Needs no relay.
#[derive(Debug, FromArgs, PartialEq, Eq)]
#[argh(note = "With --json the findings are JSON, one a line. Exit code 2: something is wrong.
What a running relay knows of the host is told by relayered admin explain HOST.")]
pub(crate) struct CheckHostArgs {
    /// name or URL of the host
    #[argh(positional)]
    host: String,
    /// also a host without TLS, or localhost:PORT
    #[argh(switch)]
    allow_insecure_hosts: bool,
    /// a network in which the host may be although it is not public, as 10.0.0.0/8
    #[argh(option)]
    allow_private_hosts: Vec<ipnet::IpNet>,
}

pub(crate) fn run(args: &CheckHostArgs, as_json: bool) -> Result<(), Fatal> {
    let policy = DialPolicy {
        allow_insecure_hosts: args.allow_insecure_hosts,
        private_hosts: args.allow_private_hosts.clone(),
    };
    block_on(async {
        let findings = check_host(&args.host, policy).await;
        for finding in &findings {
            say(&if as_json { as_line(finding) } else { as_text(finding) });
        }
        let wrong = findings.iter().find_map(|finding| finding.result.as_ref().err());
        match wrong {
            None => Ok(()),
            Some(_) => Err(Fatal::new(Code::Refused, "a relay can't subscribe to this host")),
        }
    })
}

fn as_text(finding: &Finding) -> String {
    match &finding.result {
        Ok(text) => format!("ok     {:<15} {text}", finding.what),
        Err(text) => format!("wrong  {:<15} {text}", finding.what),
    }
}

fn as_line(finding: &Finding) -> String {
    let (ok, text) = match &finding.result {
        Ok(text) => (true, text),
        Err(text) => (false, text),
    };
    json!({ "check": finding.what, "ok": ok, "detail": text }).to_string()
}
