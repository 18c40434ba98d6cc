//! `relayered plc-import`: the PLC directory's export into the identity table.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use control::{
    identity::import::{ImportConfig, ImportProgress, import},
    store::Store,
};

use crate::{
    config::Config,
    fatal::{Code, Fatal},
};

/// Between looks for what is new.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(5);
/// Between lines where nobody looks at a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Go on with what comes new.
    follow: bool,
}

/// The options, if the arguments ask for the import, and the arguments that are left.
pub(crate) fn take(args: &[String]) -> Option<(Options, Vec<String>)> {
    let (command, rest) = args.split_first()?;
    if command != "plc-import" {
        return None;
    }
    let mut options = Options::default();
    let left = rest.iter().filter(|arg| {
        let follow = *arg == "--follow";
        options.follow |= follow;
        !follow
    });
    let left = left.cloned().collect();
    Some((options, left))
}

pub(crate) fn run(options: Options, config: &Config) -> Result<(), Fatal> {
    let fault = |error: &dyn std::error::Error| Fatal::new(Code::Config, error.to_string());
    let store = Store::open(&config.database).map_err(|error| fault(&error))?;
    let import_config = ImportConfig {
        follow: options.follow.then_some(FOLLOW_INTERVAL),
        ..ImportConfig::new(&config.plc_url)
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| fault(&error))?;
    let mut teller = Teller::new();
    let done = runtime.block_on(async {
        let done = tokio::select! {
            done = import(&import_config, &store, |progress| teller.tell(progress)) => Some(done),
            // What was stored is stored: the next run goes on there.
            _ = tokio::signal::ctrl_c() => None,
        };
        store.close().await.map(|()| done)
    });
    let done = done.map_err(|error| fault(&error))?.transpose();
    let done = done.map_err(|error| {
        fault(&error).remedy("It goes on behind the last page that was stored: try again later")
    })?;
    let text = match done {
        Some(done) => format!("{} identities from {} operations", done.identities, done.operations),
        None => "stopped; the next run goes on here".to_owned(),
    };
    // Who closes the pipe has read enough.
    let _ = writeln!(std::io::stdout(), "{text}");
    Ok(())
}

/// Says now and then how far the import is.
struct Teller {
    terminal: bool,
    told_at: Option<Instant>,
    caught_up: bool,
}

impl Teller {
    fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), told_at: None, caught_up: false }
    }

    fn tell(&mut self, progress: &ImportProgress) {
        let interval = if self.terminal { Duration::from_millis(500) } else { LINE_INTERVAL };
        let due = self.told_at.is_none_or(|at| at.elapsed() >= interval);
        let news = progress.trouble.is_some() || progress.caught_up != self.caught_up;
        if !due && !news {
            return;
        }
        self.told_at = Some(Instant::now());
        self.caught_up = progress.caught_up;
        let state = match &progress.trouble {
            Some(trouble) => format!("; {trouble}, trying again"),
            None if progress.caught_up => "; all that there is".to_owned(),
            None => String::new(),
        };
        let at = progress.after.as_deref().unwrap_or("the beginning");
        let line = format!("{} operations, at {at}{state}", progress.operations);
        if self.terminal {
            eprint!("\r{line}\x1b[K");
            if news {
                eprintln!();
            }
        } else {
            eprintln!("{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_takes_its_option_and_leaves_the_relay_s_flags() {
        let split = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(take(&split("serve --plc-host x")), None);
        assert_eq!(take(&[]), None);
        let (options, left) =
            take(&split("plc-import --plc-host x --follow --data-dir y")).unwrap();
        assert!(options.follow);
        assert_eq!(left, split("--plc-host x --data-dir y"));
        assert!(!take(&split("plc-import")).unwrap().0.follow);
    }
}
