//! The stress tool's executable. It carries the relay, too: `loadgen relayed …` is `relayered …`,
//! so that a demonstration needs one binary.

#![forbid(unsafe_code)]

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut args: Vec<String> =
        std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    if args.get(1).is_some_and(|first| first == loadgen::demo::RELAY_COMMAND) {
        return daemon::main_with_args(&args.split_off(2));
    }
    loadgen::cli::main(&args)
}
