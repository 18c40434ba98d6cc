//! `relayered backup DIR` and `relayered restore DIR`: the event log and the database, together.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use control::store::{self, DatabaseUrl, backup::copy_to_file};
use engine::log::backup;
use serde_json::{Value, json};

use crate::{
    config::Config,
    fatal::{Code, Fatal},
};

const USAGE: &str =
    "relayered backup DIR [--log-only], or relayered restore DIR, and flags of the relay";
/// The database is backed up by the server's own tools.
const LOG_ONLY: &str = "--log-only";
/// A restored relay numbers on above whatever can have been given out since the backup: this many
/// events, and so many for each second since.
const MARGIN: u64 = 1_000_000;
const MARGIN_A_SECOND: u64 = 50_000;

/// Which of the two, and where the backup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Backup { dir: PathBuf, log_only: bool },
    Restore(PathBuf),
}

/// The action, if the arguments ask for one, and the arguments that are left.
pub(crate) fn take(args: &[String]) -> Result<Option<(Action, Vec<String>)>, Fatal> {
    let backup = match args.first().map(String::as_str) {
        Some("backup") => true,
        Some("restore") => false,
        _ => return Ok(None),
    };
    let Some(dir) = args.get(1).filter(|dir| !dir.starts_with('-')) else {
        return Err(Fatal::new(Code::Usage, format!("the directory is missing. Usage: {USAGE}")));
    };
    let dir = PathBuf::from(dir);
    let mut rest = args[2..].to_vec();
    if !backup {
        return Ok(Some((Action::Restore(dir), rest)));
    }
    rest.retain(|argument| argument != LOG_ONLY);
    let log_only = rest.len() < args.len() - 2;
    Ok(Some((Action::Backup { dir, log_only }, rest)))
}

pub(crate) fn run(action: &Action, config: &Config) -> Result<(), Fatal> {
    match action {
        Action::Backup { dir, log_only } => back_up(dir, *log_only, config),
        Action::Restore(dir) => restore(dir, config),
    }
}

fn io_fault(what: &str, path: &Path, error: &std::io::Error) -> Fatal {
    Fatal::new(Code::Config, format!("{what} {}: {error}", path.display()))
}

fn back_up(dir: &Path, log_only: bool, config: &Config) -> Result<(), Fatal> {
    fs::create_dir_all(dir).map_err(|error| io_fault("create", dir, &error))?;
    let taken_at = unix_now();
    // The database first: at a start it follows the log, so it may be behind, and never ahead.
    if !log_only {
        copy_to_file(&config.database, &dir.join(DATABASE)).map_err(|error| {
            Fatal::of(Code::Config, &error).remedy("The backup's directory must be a new one")
        })?;
    }
    let copied = backup::backup(&config.log_dir, &dir.join(LOG))
        .map_err(|error| Fatal::of(Code::Config, &error))?;
    let about = json!({
        "takenAt": taken_at, "database": (!log_only).then_some(DATABASE), "leased": copied.leased.0,
        "segments": copied.segments, "linked": copied.linked,
    });
    // Last: a directory without it is no complete backup.
    write_synced(dir, ABOUT, about.to_string().as_bytes())?;
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
    if let DatabaseUrl::File(path) = &config.database
        && path.exists()
    {
        return Err(Fatal::new(Code::Config, format!("{} exists", path.display()))
            .remedy("Restore into an empty data directory: move the old one away"));
    }
    let log_fault = |error| Fatal::of(Code::Config, &error);
    // The lease comes last: until then a start refuses what is there.
    backup::restore_events(&dir.join(LOG), &config.log_dir).map_err(log_fault)?;
    // Without one the database is restored apart.
    if let Some(file) = about["database"].as_str() {
        restore_database(&dir.join(file), &config.database)?;
    }
    let leased =
        backup::restore_lease(&dir.join(LOG), &config.log_dir, margin).map_err(log_fault)?;
    println!("{}", json!({ "log": config.log_dir, "nextSeq": leased.0 + 1 }));
    Ok(())
}

fn restore_database(file: &Path, database: &DatabaseUrl) -> Result<(), Fatal> {
    let DatabaseUrl::File(path) = database else {
        let from = DatabaseUrl::File(file.to_owned());
        let restored = store::copy(&from, database, |_| {});
        return restored.map(drop).map_err(|error| {
            Fatal::of(Code::Config, &error).remedy("Restore into an empty database")
        });
    };
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|error| io_fault("create", parent, &error))?;
    fs::copy(file, path).map_err(|error| io_fault("copy to", path, &error))?;
    sync(path)?;
    sync(parent)
}

/// A file or a directory: what is in it survives a power loss.
fn sync(path: &Path) -> Result<(), Fatal> {
    let synced = fs::File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|error| io_fault("sync", path, &error))
}

fn write_synced(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), Fatal> {
    let path = dir.join(name);
    fs::write(&path, bytes).map_err(|error| io_fault("write", &path, &error))?;
    sync(&path)?;
    sync(dir)
}

fn unix_now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_secs()
}
