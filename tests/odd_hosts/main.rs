//! Dozens of odd and hostile things that hosts send, each between good events of the same account, of
//! another account and of another host: the good ones come, unchanged and in order, the bad ones never,
//! and each ends for the reason that it should.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod accounts;
mod commits;
mod documents;
mod frames;
#[path = "../harness/mod.rs"]
mod harness;
mod hosts;
mod stage;
mod trees;

use stage::play;

#[test]
fn odd_frames() {
    play(1, frames::CASES);
}

#[test]
fn odd_commits() {
    play(2, commits::CASES);
}

#[test]
fn odd_trees_and_operations() {
    play(3, trees::CASES);
}

#[test]
fn odd_accounts_and_identities() {
    play(4, accounts::CASES);
}

#[test]
fn odd_documents() {
    play(5, documents::CASES);
}
