//! The AT Protocol's bytes and types: CBOR, CIDs, CAR files, frames, commits, Merkle search trees,
//! identifiers, keys and DID documents.
//!
//! There is no IO here, no clock and no async. Whatever comes from the network is hostile: every
//! parser works on borrowed bytes, allocates nothing by a length that it has not checked, and
//! bounds its recursion.

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails may as well panic")
)]

pub mod car;
pub mod cbor;
pub mod cid;
pub mod commit;
pub mod did_doc;
pub mod error;
pub mod frame;
pub mod key;
pub mod mst;
pub mod syntax;

pub use crate::cid::{Cid, Codec};
pub use crate::error::{DecodeError, DecodeErrorKind};
