//! `relayered db …`

use std::io::{IsTerminal, Write};

use control::store::{self, DatabaseUrl, StoreError};

use crate::{
    args::DbCommand,
    fatal::{Code, Fatal},
};

/// Lines where nobody looks at a terminal: one for so many rows.
const ROWS_A_LINE: u64 = 1_000_000;

pub(crate) fn run(command: &DbCommand) -> Result<(), Fatal> {
    let DbCommand::Copy { from, to } = command;
    let parse = |url: &str| DatabaseUrl::parse(url).map_err(|error| fatal(&error));
    let (from, to) = (parse(from)?, parse(to)?);
    eprintln!("{from} -> {to}");
    let terminal = std::io::stderr().is_terminal();
    let (mut table, mut told) = ("", 0);
    let copied = store::copy(&from, &to, |progress| {
        let done = progress.rows >= progress.of;
        if terminal {
            eprint!("\r{}: {} of {}\x1b[K", progress.table, progress.rows, progress.of);
            if done {
                eprintln!();
            }
        } else if done || table != progress.table || progress.rows - told >= ROWS_A_LINE {
            eprintln!("{}: {} of {}", progress.table, progress.rows, progress.of);
            told = progress.rows;
        }
        table = progress.table;
    });
    let rows = copied.map_err(|error| {
        fatal(&error).remedy("Nothing was changed in the first; begin again with an empty second")
    })?;
    // Who closes the pipe has read enough.
    let _ = writeln!(std::io::stdout(), "{rows} rows copied, and counted in the new database");
    Ok(())
}

fn fatal(error: &StoreError) -> Fatal {
    Fatal::of(Code::Config, error)
}
