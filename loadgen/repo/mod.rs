//! Simulated accounts: repositories with real trees and real signatures, and the frames that their
//! host emits for each change.
//!
//! ```no_run
//! use loadgen::repo::{Account, Curve, Stamp};
//!
//! let mut account = Account::new(1, 0, Curve::K256);
//! let stamp = Stamp { seq: 1, micros: 1_750_000_000_000_000 };
//! let frame: Vec<u8> = account.create(stamp, "app.bsky.feed.post/3lq2k3k5cmk2a", &[0xa0]);
//! let document: String = account.document("http://localhost:2583");
//! ```

mod account;
pub mod car;
pub mod cbor;
mod document;
pub mod frame;
pub mod record;

pub use account::{Account, Stamp, Write, commit_block};
pub use document::{did_document, plc_did};
pub use ecdsa::Curve;
pub use frame::{CommitDraft, OpDraft};

#[cfg(test)]
mod tests;
