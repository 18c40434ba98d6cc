//! `relayered log COMMAND`: its own flags are taken out, all others are those of the relay.

use super::{ArgsError, LogCommand};

const USAGE: &str = "relayered log info|verify|repair [--json], or \
                     relayered log dump [--from SEQ] [--count N] [--json]";

/// The command, if it is one on the log, and the arguments that are left.
pub(super) fn take(args: &[String]) -> Result<(Option<LogCommand>, Vec<String>), ArgsError> {
    if args.first().is_none_or(|first| first != "log") {
        return Ok((None, args.to_vec()));
    }
    let mut given = Given { from: None, count: None, json: false };
    let mut name = None;
    let mut left = Vec::new();
    let mut rest = args[1..].iter();
    while let Some(arg) = rest.next() {
        let (flag, inline) = match arg.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (arg.as_str(), None),
        };
        match flag {
            "--json" if inline.is_none() => given.json = true,
            "--from" => given.from = Some(number(flag, inline, &mut rest)?),
            "--count" => given.count = Some(number(flag, inline, &mut rest)?),
            _ if name.is_none() && !arg.starts_with('-') => name = Some(arg.as_str()),
            _ if !arg.starts_with('-') => {
                return Err(ArgsError::Usage(format!(
                    "{arg:?}: one command at a time. Usage: {USAGE}"
                )));
            }
            _ => {
                left.push(arg.clone());
                // A value belongs to its flag, and is no command.
                let has_value = flag.starts_with("--") && inline.is_none();
                if let Some(value) =
                    rest.clone().next().filter(|next| has_value && takes(flag, next))
                {
                    left.push(value.clone());
                    rest.next();
                }
            }
        }
    }
    if left.iter().any(|arg| matches!(arg.as_str(), "--help" | "-h" | "--version" | "-V")) {
        return Ok((None, left));
    }
    Ok((Some(given.command(name)?), left))
}

/// Whether the argument behind a flag is its value.
fn takes(flag: &str, next: &str) -> bool {
    use super::table::{Kind, find};
    let kind = flag.strip_prefix("--").and_then(find).map(|flag| flag.kind);
    !next.starts_with("--")
        && matches!(kind, Some(Kind::Value(_) | Kind::List(_) | Kind::IgnoredValue))
}

struct Given {
    from: Option<u64>,
    count: Option<u64>,
    json: bool,
}

impl Given {
    fn command(&self, name: Option<&str>) -> Result<LogCommand, ArgsError> {
        let Self { from, count, json } = *self;
        let command = match name {
            Some("info") => LogCommand::Info { json },
            Some("verify") => LogCommand::Verify { json },
            Some("repair") => LogCommand::Repair { json },
            Some("dump") => {
                LogCommand::Dump { from: from.unwrap_or(0), count: count.unwrap_or(u64::MAX), json }
            }
            Some(other) => {
                return Err(ArgsError::Usage(format!(
                    "unknown command log {other:?}. Usage: {USAGE}"
                )));
            }
            None => return Err(ArgsError::Usage(format!("log needs a command. Usage: {USAGE}"))),
        };
        if !matches!(command, LogCommand::Dump { .. }) && (from.is_some() || count.is_some()) {
            return Err(ArgsError::Usage(format!(
                "--from and --count are for dump. Usage: {USAGE}"
            )));
        }
        Ok(command)
    }
}

fn number<'a>(
    flag: &str,
    inline: Option<&str>,
    rest: &mut impl Iterator<Item = &'a String>,
) -> Result<u64, ArgsError> {
    let text = inline.or_else(|| rest.next().map(String::as_str)).unwrap_or_default();
    text.parse().map_err(|_not_a_number| {
        ArgsError::Usage(format!(
            "{flag} needs a number of 0 or more, not {text:?}. Usage: {USAGE}"
        ))
    })
}
