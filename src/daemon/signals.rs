//! Signals: the first one stops the relay in order, the second one at once.

use std::{io, sync::mpsc, thread};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::relay::Event;

/// Starts the thread that hears SIGTERM and SIGINT.
pub(crate) fn start(events: mpsc::Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut seen = false;
        for signal in signals.forever() {
            if seen {
                eprintln!("relayered: second signal, leaving at once");
                leave(128 + signal);
            }
            seen = true;
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "asked for twice: the log's recovery makes good what is not flushed"
)]
fn leave(code: i32) -> ! {
    std::process::exit(code)
}
