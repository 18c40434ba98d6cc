//! Errors that end the process: an exit code, and a message that says what to do.

use std::{error::Error, process::ExitCode};

/// As in `sysexits.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// The event log is damaged: said by `relayered log verify`.
    Damaged = 1,
    /// A relay, or a check, said no.
    Refused = 2,
    Usage = 64,
    /// A relay can't be reached.
    Unavailable = 69,
    Software = 70,
    /// The admin key is not the relay's.
    Permission = 77,
    Config = 78,
}

#[derive(Debug)]
pub(crate) struct Fatal {
    code: Code,
    message: String,
    /// What to do; empty if the message says it.
    remedy: &'static str,
}

impl Fatal {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), remedy: "" }
    }

    /// An error with all its causes.
    pub(crate) fn of(code: Code, error: &dyn Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Many errors tell their cause themselves.
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        Self::new(code, message)
    }

    pub(crate) fn remedy(mut self, remedy: &'static str) -> Self {
        self.remedy = remedy;
        self
    }

    /// Says it on standard error, once, and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("relayered: {}", self.message);
        if !self.remedy.is_empty() {
            eprintln!("  {}", self.remedy);
        }
        ExitCode::from(self.code as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_are_told_once() {
        let error = Outer(std::io::Error::other("inner"));
        assert_eq!(Fatal::of(Code::Software, &error).message, "outer: inner");
    }
}
