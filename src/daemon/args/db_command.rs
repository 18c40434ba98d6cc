//! `relayered db copy FROM TO`.

use super::{ArgsError, DbCommand};

const USAGE: &str = "relayered db copy FROM TO, where both are URLs as for --db-url";

/// What stands behind `db`. `None`: the help is wanted.
pub(super) fn parse(args: &[String]) -> Result<Option<DbCommand>, ArgsError> {
    let wrong = |problem: &str| ArgsError::Usage(format!("{problem}. Usage: {USAGE}"));
    if args.iter().any(|arg| matches!(arg.as_str(), "--help" | "-h")) {
        return Ok(None);
    }
    match args {
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
