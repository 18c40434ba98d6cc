//! `relayered db copy FROM TO`.

use super::{ArgsError, DbCommand};

const USAGE: &str = "relayered db copy FROM TO, where both are URLs as for --db-url";

/// The command, if it is one on databases. `None` also where the help is wanted.
pub(super) fn take(args: &[String]) -> Result<Option<DbCommand>, ArgsError> {
    let wrong = |problem: &str| ArgsError::Usage(format!("{problem}. Usage: {USAGE}"));
    let (Some("db"), Some(rest)) = (args.first().map(String::as_str), args.get(1..)) else {
        return Ok(None);
    };
    if rest.iter().any(|arg| matches!(arg.as_str(), "--help" | "-h" | "--version" | "-V")) {
        return Ok(None);
    }
    match rest {
        [copy, from, to]
            if copy == "copy" && ![from, to].iter().any(|url| url.starts_with('-')) =>
        {
            Ok(Some(DbCommand::Copy { from: from.clone(), to: to.clone() }))
        }
        [] => Err(wrong("db needs a command")),
        [copy, ..] if copy == "copy" => Err(wrong("db copy takes two URLs and no flags")),
        [other, ..] => Err(wrong(&format!("unknown command db {other:?}"))),
    }
}
