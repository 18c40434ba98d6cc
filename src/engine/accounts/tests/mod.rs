//! The stage as a whole, with real signed commits.

mod commits;
mod identities;
mod kit;
mod model;
mod states;
mod vectors;
