//! `relayered backup DIR` and `relayered restore DIR`: the event log and the database, together.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use control::store::{DatabaseUrl, backup::copy_sqlite};
use engine::log::backup;
use serde_json::{Value, json};

use crate::{
    config::Config,
    fatal::{Code, Fatal},
};

const USAGE: &str = "relayered backup DIR, or relayered restore DIR, and flags of the relay";
/// A restored relay numbers on above whatever can have been given out since the backup: this many
/// events, and so many for each second since.
const MARGIN: u64 = 1_000_000;
const MARGIN_A_SECOND: u64 = 50_000;

/// Which of the two, and where the backup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Backup(PathBuf),
    Restore(PathBuf),
}

/// The action, if the arguments ask for one, and the arguments that are left.
pub(crate) fn take(args: &[String]) -> Result<Option<(Action, Vec<String>)>, Fatal> {
    let make = match args.first().map(String::as_str) {
        Some("backup") => Action::Backup,
        Some("restore") => Action::Restore,
        _ => return Ok(None),
    };
    match args.get(1) {
        Some(dir) if !dir.starts_with('-') => {
            Ok(Some((make(PathBuf::from(dir)), args[2..].to_vec())))
        }
        _ => Err(Fatal::new(Code::Usage, format!("the directory is missing. Usage: {USAGE}"))),
    }
}

pub(crate) fn run(action: &Action, config: &Config) -> Result<(), Fatal> {
    match action {
        Action::Backup(dir) => back_up(dir, config),
        Action::Restore(dir) => restore(dir, config),
    }
}

fn io_fault(what: &str, path: &Path, error: &std::io::Error) -> Fatal {
    Fatal::new(Code::Config, format!("{what} {}: {error}", path.display()))
}

fn back_up(dir: &Path, config: &Config) -> Result<(), Fatal> {
    fs::create_dir_all(dir).map_err(|error| io_fault("create", dir, &error))?;
    let taken_at = unix_now();
    // The database first: at a start it follows the log, so it may be behind, and never ahead.
    let file = match &config.database {
        DatabaseUrl::File(path) => {
            copy_sqlite(path, &dir.join(DATABASE)).map_err(|error| {
                Fatal::of(Code::Config, &error).remedy("The backup's directory must be a new one")
            })?;
            Some(DATABASE)
        }
        _ => {
            eprintln!(
                "relayered: the database is not a file and is not part of this backup: dump it \
                 (pg_dump) BEFORE the backup, as it must not be ahead of the log"
            );
            None
        }
    };
    let copied = backup::backup(&config.log_dir, &dir.join(LOG))
        .map_err(|error| Fatal::of(Code::Config, &error))?;
    let about = json!({
        "takenAt": taken_at, "database": file, "leased": copied.leased.0,
        "segments": copied.segments, "linked": copied.linked,
    });
    // Last: a directory without it is no complete backup.
    fs::write(dir.join(ABOUT), about.to_string())
        .map_err(|error| io_fault("write", &dir.join(ABOUT), &error))?;
    println!("{about}");
    Ok(())
}

const DATABASE: &str = "relayered.sqlite";
const LOG: &str = "log";
const ABOUT: &str = "backup.json";

fn restore(dir: &Path, config: &Config) -> Result<(), Fatal> {
    let path = dir.join(ABOUT);
    let text = fs::read(&path).map_err(|error| {
        io_fault("read", &path, &error).remedy("Without this file it is no complete backup")
    })?;
    let about: Value = serde_json::from_slice(&text).unwrap_or_default();
    let taken_at = about["takenAt"].as_u64().unwrap_or(0);
    let since = unix_now().saturating_sub(taken_at);
    let margin = MARGIN + MARGIN_A_SECOND.saturating_mul(since);
    if let (DatabaseUrl::File(path), Some(file)) = (&config.database, about["database"].as_str()) {
        if path.exists() {
            return Err(Fatal::new(Code::Config, format!("{} exists", path.display()))
                .remedy("Restore into an empty data directory: move the old one away"));
        }
        let parent = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(|error| io_fault("create", parent, &error))?;
        fs::copy(dir.join(file), path).map_err(|error| io_fault("copy to", path, &error))?;
    }
    let leased = backup::restore(&dir.join(LOG), &config.log_dir, margin)
        .map_err(|error| Fatal::of(Code::Config, &error))?;
    println!("{}", json!({ "log": config.log_dir, "nextSeq": leased.0 + 1 }));
    Ok(())
}

fn unix_now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_secs()
}
