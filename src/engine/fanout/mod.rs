//! Sends the log to consumers.
