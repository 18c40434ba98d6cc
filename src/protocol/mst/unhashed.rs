//! Hashing that waits: nodes that were put together, and keys whose layers are to be checked.
//!
//! An inversion hashes one node after the other, as each stands in the next. Many inversions side
//! by side have many nodes that do not wait for each other: here they are kept until all are there,
//! and hashed level by level, many at once.

use std::ops::Range;

use ecdsa::sha256::Hasher;

use super::layer_of;
use crate::cid::{Cid, Codec};

/// What stands for a node: its CID, or its number among those that wait.
#[derive(Clone, Copy, Debug)]
pub(super) enum Link {
    Cid(Cid),
    Node(u32),
}

/// Where the digest of a node that waits goes within the bytes of another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hole {
    pub(super) offset: u32,
    pub(super) node: u32,
}

/// Who hashes what an inversion needs hashed.
pub(super) trait Hashing {
    /// Whether the key stands on this layer, as far as can be told now.
    fn is_on_layer(&mut self, key: &[u8], layer: u32) -> bool;
    /// Takes a node, whose holes are of nodes that this has given out.
    fn node(&mut self, bytes: &[u8], holes: &[Hole]) -> Link;
}

/// Hashes at once. Has no holes.
#[derive(Debug)]
pub(super) struct AtOnce;

impl Hashing for AtOnce {
    fn is_on_layer(&mut self, key: &[u8], layer: u32) -> bool {
        super::key_layer(key) == layer
    }

    fn node(&mut self, bytes: &[u8], holes: &[Hole]) -> Link {
        debug_assert!(holes.is_empty(), "what was hashed at once has its CID");
        Link::Cid(Cid::of_dag_cbor(bytes))
    }
}

/// An inversion that waits for its hashes.
#[derive(Clone, Debug)]
pub struct Undone {
    root: Link,
    keys: Range<u32>,
}

/// What several inversions need hashed. Its room is used again.
#[derive(Debug, Default)]
pub struct Unhashed {
    /// Keys and nodes.
    bytes: Vec<u8>,
    keys: Vec<Key>,
    nodes: Vec<Node>,
    /// Of keys at first, then of nodes.
    digests: Vec<[u8; 32]>,
    /// For each key, whether it stands where it should.
    right: Vec<bool>,
    /// Numbers of nodes, the lowest level first.
    order: Vec<u32>,
    hasher: Hasher,
}

#[derive(Debug)]
struct Key {
    bytes: Range<u32>,
    layer: u32,
}

#[derive(Debug)]
struct Node {
    bytes: Range<u32>,
    /// Zero: it waits for no other; else one more than the highest that it waits for.
    level: u32,
    /// Where its digest is to be written in `bytes`, if in another node.
    goes_to: Option<u32>,
    digest: [u8; 32],
}

impl Hashing for Unhashed {
    fn is_on_layer(&mut self, key: &[u8], layer: u32) -> bool {
        let bytes = self.put(key);
        self.keys.push(Key { bytes, layer });
        true
    }

    fn node(&mut self, bytes: &[u8], holes: &[Hole]) -> Link {
        let bytes = self.put(bytes);
        let mut level = 0;
        for hole in holes {
            let child = &mut self.nodes[hole.node as usize];
            child.goes_to = Some(bytes.start + hole.offset);
            level = level.max(child.level + 1);
        }
        self.nodes.push(Node { bytes, level, goes_to: None, digest: [0; 32] });
        Link::Node(self.nodes.len() as u32 - 1)
    }
}

impl Unhashed {
    /// Forgets everything, and gives back what an unusual event took.
    pub fn clear(&mut self) {
        const BYTES_KEPT: usize = 1 << 20;
        self.bytes.clear();
        self.bytes.shrink_to(BYTES_KEPT);
        self.keys.clear();
        self.keys.shrink_to(BYTES_KEPT / 32);
        self.nodes.clear();
        self.right.clear();
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn put(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len() as u32
    }

    /// How much there is, to come back to.
    pub(super) fn mark(&self) -> (usize, u32, usize) {
        (self.bytes.len(), self.keys.len() as u32, self.nodes.len())
    }

    /// Forgets what came after the mark.
    pub(super) fn back_to(&mut self, (bytes, keys, nodes): (usize, u32, usize)) {
        self.bytes.truncate(bytes);
        self.keys.truncate(keys as usize);
        self.nodes.truncate(nodes);
    }

    pub(super) fn undone(&self, root: Link, first_key: u32) -> Undone {
        Undone { root, keys: first_key..self.keys.len() as u32 }
    }

    /// Hashes everything.
    pub fn hash(&mut self) {
        let Self { bytes, keys, nodes, digests, right, order, hasher } = self;
        hasher.hash(keys.len(), |at| slice(bytes, &keys[at].bytes), digests);
        right.extend(keys.iter().zip(&*digests).map(|(key, digest)| layer_of(digest) == key.layer));
        order.clear();
        order.extend(0..nodes.len() as u32);
        order.sort_unstable_by_key(|at| nodes[*at as usize].level);
        let mut rest = &order[..];
        while let Some(first) = rest.first() {
            let lowest = nodes[*first as usize].level;
            let count = rest.iter().take_while(|at| nodes[**at as usize].level == lowest).count();
            let (level, others) = rest.split_at(count);
            rest = others;
            let of = |at: usize| slice(bytes, &nodes[level[at] as usize].bytes);
            hasher.hash(count, of, digests);
            for (at, digest) in level.iter().zip(&*digests) {
                let node = &mut nodes[*at as usize];
                node.digest = *digest;
                if let Some(at) = node.goes_to {
                    bytes[at as usize..][..digest.len()].copy_from_slice(digest);
                }
            }
        }
    }

    /// The root that an inversion has led to; `None` if a key was not on its layer. After
    /// [`Unhashed::hash`].
    pub fn root(&self, undone: &Undone) -> Option<Cid> {
        let keys = undone.keys.start as usize..undone.keys.end as usize;
        let all_right = self.right.get(keys)?.iter().all(|right| *right);
        all_right.then(|| match undone.root {
            Link::Cid(cid) => cid,
            Link::Node(at) => Cid::from_digest(Codec::DagCbor, self.nodes[at as usize].digest),
        })
    }
}

fn slice<'a>(bytes: &'a [u8], range: &Range<u32>) -> &'a [u8] {
    &bytes[range.start as usize..range.end as usize]
}
