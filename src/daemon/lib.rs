//! The relay as a program: command line, configuration, start, signals, stop.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking"))]

mod admin;
mod args;
mod backup;
mod check_host;
mod config;
mod db_tools;
mod env;
mod fatal;
mod files;
mod log;
mod log_tools;
mod plc_import;
mod pull_hosts;
mod relay;
mod signals;

use std::{io::Write, path::Path, process::ExitCode};

use crate::{
    args::{ArgsError, Invocation, Tool},
    config::{Config, LogOutput},
    env::Layers,
    fatal::{Code, Fatal},
};

/// Runs the program with the process's arguments and environment.
pub fn main() -> ExitCode {
    let args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    main_with_args(&args.collect::<Vec<_>>())
}

/// Runs the program with these arguments, as another executable does that carries the relay.
pub fn main_with_args(args: &[String]) -> ExitCode {
    abort_on_panic();
    match invoke(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => fatal.report(),
    }
}

fn invoke(args: &[String]) -> Result<(), Fatal> {
    let env = Layers::load(Path::new(".env")).map_err(|error| Fatal::of(Code::Config, &error))?;
    let faulty_args = |error: ArgsError| {
        let code = match error {
            ArgsError::Usage(_) | ArgsError::Command(..) => Code::Usage,
            ArgsError::Value(_) => Code::Config,
        };
        Fatal::of(code, &error)
    };
    if let Some((action, flags)) = backup::take(args)? {
        return match args::parse(&flags, &env).map_err(faulty_args)? {
            Invocation::Serve { flags, .. } => {
                let faulty = |error| Fatal::of(Code::Config, &error).remedy("See relayered --help");
                backup::run(&action, &Config::from_flags(&flags).map_err(faulty)?)
            }
            _ => Err(Fatal::new(Code::Usage, "one command at a time. See relayered --help")),
        };
    }
    if let Some((options, flags)) = plc_import::take(args) {
        return match args::parse(&flags, &env).map_err(faulty_args)? {
            Invocation::Serve { flags, .. } => {
                let faulty = |error| Fatal::of(Code::Config, &error).remedy("See relayered --help");
                plc_import::run(options, &Config::from_flags(&flags).map_err(faulty)?)
            }
            _ => Err(Fatal::new(Code::Usage, "one command at a time. See relayered --help")),
        };
    }
    match args::parse(args, &env).map_err(faulty_args)? {
        Invocation::Print(text) => {
            // Who closes the pipe has read enough.
            let _ = std::io::stdout().write_all(text.as_bytes());
            Ok(())
        }
        Invocation::Log { command, flags } => {
            let faulty = |error| Fatal::of(Code::Config, &error).remedy("See relayered --help");
            log::start(&LogOutput::from_flags(&flags).map_err(faulty)?);
            log_tools::run(command, &Config::from_flags(&flags).map_err(faulty)?.log_dir)
        }
        Invocation::Db(command) => db_tools::run(&command),
        Invocation::Tool { tool, target, json } => match *tool {
            Tool::Admin(args) => admin::run(args, &target, json),
            Tool::PullHosts(args) => pull_hosts::run(&args, &target, json),
            Tool::CheckHost(args) => check_host::run(&args, json),
        },
        Invocation::Serve { flags, ignored } => {
            let faulty = |error| Fatal::of(Code::Config, &error).remedy("See relayered --help");
            log::start(&LogOutput::from_flags(&flags).map_err(faulty)?);
            for name in ignored {
                tracing::warn!(name, "taken for compatibility, without effect");
            }
            relay::run(Config::from_flags(&flags).map_err(faulty)?)
        }
    }
}

/// A thread that panicked has left its part of the relay undone: a relay that is half dead must
/// not live on. Whatever started it (systemd) starts it again, and the log tells where it was.
fn abort_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        tell(info);
        eprintln!(
            "relayered: this is a fault in the program; please report it with the lines above"
        );
        std::process::abort();
    }));
}
