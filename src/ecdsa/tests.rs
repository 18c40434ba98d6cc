//! Against the oracles.
