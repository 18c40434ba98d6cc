//! Signals: the first one stops the relay in order, the second one at once.

use std::{
    io,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::relay::Event;

/// Two signals closer together are one: `timeout` and others signal a process and its whole group.
const ONE_SIGNAL: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Stop,
    Echo,
    LeaveAtOnce,
}

/// When the first signal came.
#[derive(Debug, Default)]
struct Heard(Option<Instant>);

impl Heard {
    fn handle_signal(&mut self, now: Instant) -> Meaning {
        match self.0 {
            None => {
                self.0 = Some(now);
                Meaning::Stop
            }
            Some(first) if now.duration_since(first) < ONE_SIGNAL => Meaning::Echo,
            Some(_) => Meaning::LeaveAtOnce,
        }
    }
}

/// Starts the thread that hears SIGTERM and SIGINT.
pub(crate) fn start(events: mpsc::Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut heard = Heard::default();
        for signal in signals.forever() {
            match heard.handle_signal(Instant::now()) {
                Meaning::Stop => {
                    if events.send(Event::Signal(signal)).is_err() {
                        return;
                    }
                }
                Meaning::Echo => {}
                Meaning::LeaveAtOnce => {
                    eprintln!("relayered: second signal, leaving at once");
                    leave(128 + signal);
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_signal_is_not_the_echo_of_the_first() {
        let start = Instant::now();
        let mut heard = Heard::default();
        assert_eq!(heard.handle_signal(start), Meaning::Stop);
        assert_eq!(heard.handle_signal(start + Duration::from_millis(1)), Meaning::Echo);
        assert_eq!(heard.handle_signal(start + ONE_SIGNAL), Meaning::LeaveAtOnce);
    }
}
