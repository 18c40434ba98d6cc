//! The program's log: standard error, coloured only where somebody looks at it.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{LogFormat, LogOutput};

/// Libraries that tell more than anybody wants at the levels below info.
const QUIET: &str = "hyper=info,hyper_util=info,reqwest=info,rustls=info,tungstenite=info,\
                     refinery_core=warn,mio=info,tokio=info";

/// Starts logging. Once a process; a second call changes nothing.
pub(crate) fn start(output: &LogOutput) {
    let level = output.level.as_str().to_ascii_lowercase();
    let quiet = if output.level > tracing::Level::INFO { QUIET } else { "refinery_core=warn" };
    let filter = EnvFilter::new(format!("{level},{quiet}"));
    let builder = fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match output.format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging had been started already");
    }
    if let Some(level) = &output.unknown_level {
        tracing::warn!(
            level,
            "unknown log level; expected error, warn, info, debug or trace. Using info"
        );
    }
}
