//! The limit on open files: one for each host and each consumer, and a few for the log.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are neither a host's nor a consumer's: the log, the database, HTTP connections.
const OTHERS: u64 = 8192;

/// Raises the limit as far as the process may. Distributions set it low for programs that use
/// `select`, of which this is none.
pub(crate) fn raise_limit(consumers_max: usize) {
    let before = getrlimit(Resource::Nofile);
    let mut now = before.current;
    if before.current != before.maximum {
        match setrlimit(Resource::Nofile, Rlimit { current: before.maximum, ..before }) {
            Ok(()) => now = before.maximum,
            Err(error) => tracing::warn!(%error, "the limit on open files can't be raised"),
        }
    }
    // Without a limit there is nothing to say.
    let Some(now) = now else { return };
    tracing::info!(limit = now, "open files");
    if now < OTHERS + consumers_max as u64 {
        tracing::warn!(
            limit = now,
            consumers_max,
            "more consumers are allowed than files can be open: raise the hard limit (systemd: \
             LimitNOFILE), or lower --max-consumers"
        );
    }
}
