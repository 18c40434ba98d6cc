//! Commands that talk to a relay or prepare one, each with flags of its own, which argh reads.

use argh::{FromArgs, TopLevelCommand};

use super::{ArgsError, Invocation};
use crate::{
    admin::{AdminArgs, Target},
    check_host::CheckHostArgs,
    env::Env,
    pull_hosts::PullHostsArgs,
};

/// What such a command asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    Admin(AdminArgs),
    PullHosts(PullHostsArgs),
    CheckHost(CheckHostArgs),
}

/// The command, if it is one of these.
pub(super) fn take(args: &[String], env: &impl Env) -> Result<Option<Invocation>, ArgsError> {
    let Some((name, rest)) = args.split_first() else { return Ok(None) };
    let (given, rest) = Given::take(name, rest)?;
    let tool = match name.as_str() {
        "admin" => read::<AdminArgs>(name, &rest).map(|read| read.map(Tool::Admin)),
        "pull-hosts" => read::<PullHostsArgs>(name, &rest).map(|read| read.map(Tool::PullHosts)),
        "check-host" => read::<CheckHostArgs>(name, &rest).map(|read| read.map(Tool::CheckHost)),
        _ => return Ok(None),
    };
    Ok(Some(match tool? {
        Read::Help(text) => Invocation::Print(text),
        Read::Command(tool) => {
            let target = given.target.complete(env);
            Invocation::Tool { tool: Box::new(tool), target, json: given.json }
        }
    }))
}

enum Read<T> {
    Help(String),
    Command(T),
}

impl<T> Read<T> {
    fn map<U>(self, to: impl FnOnce(T) -> U) -> Read<U> {
        match self {
            Self::Help(text) => Read::Help(text),
            Self::Command(command) => Read::Command(to(command)),
        }
    }
}

fn read<T: TopLevelCommand + FromArgs>(name: &str, args: &[&str]) -> Result<Read<T>, ArgsError> {
    match T::from_args(&["relayered", name], args) {
        Ok(command) => Ok(Read::Command(command)),
        Err(exit) if exit.status.is_ok() => Ok(Read::Help(exit.output)),
        Err(exit) => {
            let text = exit.output.trim().trim_end_matches('.');
            Err(ArgsError::Command(name.to_owned(), text.to_owned()))
        }
    }
}

/// Flags that may stand anywhere behind the command.
#[derive(Default)]
struct Given {
    target: Target,
    json: bool,
}

impl Given {
    fn take<'a>(command: &str, args: &'a [String]) -> Result<(Self, Vec<&'a str>), ArgsError> {
        let (mut given, mut left) = (Self::default(), Vec::new());
        let mut rest = args.iter().map(String::as_str);
        while let Some(arg) = rest.next() {
            let (flag, inline) = match arg.split_once('=') {
                Some((flag, value)) => (flag, Some(value)),
                None => (arg, None),
            };
            let place = match flag {
                "--json" if inline.is_none() => {
                    given.json = true;
                    continue;
                }
                "--relay-url" => &mut given.target.relay_url,
                "--admin-key" | "--admin-password" => &mut given.target.admin_key,
                _ => {
                    left.push(arg);
                    continue;
                }
            };
            let value = inline.or_else(|| rest.next()).filter(|value| !value.is_empty());
            let Some(value) = value else {
                return Err(ArgsError::Command(
                    command.to_owned(),
                    format!("{flag} needs a value"),
                ));
            };
            *place = Some(value.to_owned());
        }
        Ok((given, left))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::env::Layers;

    fn run(args: &str, env: &[(&str, &str)]) -> Result<Option<Invocation>, ArgsError> {
        let args: Vec<String> = args.split_ascii_whitespace().map(str::to_owned).collect();
        let layer: HashMap<String, String> =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        take(&args, &Layers::new([layer]))
    }

    #[test]
    fn common_flags_stand_anywhere_and_win_over_variables() {
        let env = [("RELAY_HOST", "relay.example.com"), ("RELAY_ADMIN_KEY", "one, two")];
        for (args, url, key, as_json) in [
            ("admin host list", "relay.example.com", "one", false),
            ("admin --json host list --relay-url :1", ":1", "one", true),
            ("admin --relay-url=:1 host --admin-key k list", ":1", "k", false),
        ] {
            let Some(Invocation::Tool { tool, target, json }) = run(args, &env).unwrap() else {
                panic!("{args}")
            };
            assert!(matches!(*tool, Tool::Admin(_)));
            assert_eq!(target.relay_url.as_deref(), Some(url), "{args}");
            assert_eq!((target.admin_key.as_deref(), json), (Some(key), as_json), "{args}");
        }
    }

    #[test]
    fn mistakes_are_told_and_help_is_printed() {
        for args in
            ["admin", "admin frobnicate", "admin host", "admin host block", "admin --relay-url"]
        {
            assert!(matches!(run(args, &[]), Err(ArgsError::Command(..))), "{args}");
        }
        for args in
            ["admin --help", "admin host --help", "admin host add --help", "pull-hosts --help"]
        {
            assert!(matches!(run(args, &[]), Ok(Some(Invocation::Print(_)))), "{args}");
        }
        assert_eq!(run("serve", &[]), Ok(None));
        assert_eq!(run("", &[]), Ok(None));
    }
}
