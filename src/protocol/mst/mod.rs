//! The Merkle search tree of a repository: from record path to record CID.
//!
//! A key's layer is the number of leading zero bits of its SHA-256, halved. Keys of the highest
//! layer stand in the root; between two keys of a node hangs the subtree of the keys between
//! them, exactly one layer lower (through nodes without keys, if need be). So the tree is a
//! function of its content, and a relay can undo a commit's operations on the few nodes that the
//! commit brings ([`invert`]) and compare the root with the one before.

mod invert;
mod layers;
mod node;
pub mod tree;
mod unhashed;

use std::fmt;

use sha2::{Digest, Sha256};

use crate::cid::{Cid, Codec};

pub use invert::{Scratch, invert, invert_later};
pub use node::{ENTRIES_MAX, KEY_BYTES_MAX};
pub use unhashed::{Undone, Unhashed};

/// The CID of the empty tree's only node.
pub const EMPTY_ROOT: Cid = Cid::from_digest(
    Codec::DagCbor,
    [
        0x9d, 0xfe, 0xfe, 0x61, 0xdd, 0x76, 0xea, 0x3d, 0xca, 0xe5, 0x02, 0x38, 0x80, 0xb0, 0x83,
        0x79, 0xd5, 0x7a, 0xdf, 0x20, 0x48, 0x2d, 0x6f, 0xdb, 0xe2, 0x75, 0x92, 0x89, 0xf6, 0x47,
        0x67, 0x7b,
    ],
);

/// The highest layer that a tree may have. A key of layer 63 takes 126 leading zero bits.
const LAYER_MAX: u32 = 63;

/// The layer on which a key stands.
#[inline]
pub fn key_layer(key: &[u8]) -> u32 {
    layer_of(&Sha256::digest(key).into())
}

/// The same by the key's hash.
#[inline]
fn layer_of(digest: &[u8; 32]) -> u32 {
    let mut zeros = 0;
    for byte in digest {
        zeros += byte.leading_zeros();
        if *byte != 0 {
            break;
        }
    }
    zeros / 2
}

/// Why a commit's operations could not be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MstError {
    /// A node that breaks the tree's rules.
    Malformed,
    /// A node that is needed is not among the blocks.
    Missing,
    /// An operation does not fit the tree: the path is there and should not be, is not there and
    /// should be, or has another CID.
    Mismatch,
    /// An operation without a needed `prev`, with an empty or too long path, or with the path of
    /// another one.
    OpInvalid,
    /// More keys than a commit can honestly need.
    TooLarge,
}

impl fmt::Display for MstError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed tree node",
            Self::Missing => "tree node missing",
            Self::Mismatch => "operation does not fit the tree",
            Self::OpInvalid => "operation that cannot be undone",
            Self::TooLarge => "too many keys",
        })
    }
}

impl std::error::Error for MstError {}
