//! Builds a tree from its content in order: one open node on each layer, closed (encoded and
//! given to be hashed) when a key of a higher layer arrives. Besides keys it takes whole subtrees, known by
//! their CID alone.

use super::{
    LAYER_MAX,
    node::{KeyArena, KeyRef, NodeWriter},
    unhashed::{Hashing, Link},
};
use crate::cid::Cid;

/// A subtree that is not looked into. Its keys are above `low` and below `high`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subtree {
    pub(super) cid: Cid,
    pub(super) layer: u32,
    pub(super) low: Option<KeyRef>,
    pub(super) high: Option<KeyRef>,
}

/// A key whose right link is not yet known.
#[derive(Clone, Copy, Debug)]
struct Pending {
    key: KeyRef,
    value: Cid,
    right: Option<Link>,
}

#[derive(Debug, Default)]
struct Layer {
    writer: NodeWriter,
    left: Option<Link>,
    pending: Option<Pending>,
    /// The key written last, from which the next is compressed.
    written: KeyRef,
}

#[derive(Debug, Default)]
pub(super) struct Layers {
    nodes: Vec<Layer>,
    /// One bit for each layer with an open node.
    open: u64,
    /// The layer of the key that came last.
    last_key: Option<u32>,
    /// The highest layer that had a key.
    top: u32,
    /// A subtree that came after the last key.
    tail: Option<Subtree>,
}

impl Layers {
    pub(super) fn clear(&mut self) {
        if self.nodes.is_empty() {
            self.nodes.resize_with(LAYER_MAX as usize + 2, Layer::default);
        }
        // A failed inversion leaves nodes open.
        while self.open != 0 {
            let layer = self.open.trailing_zeros();
            self.reset(layer);
        }
        self.last_key = None;
        self.top = 0;
        self.tail = None;
    }

    fn reset(&mut self, layer: u32) {
        self.open &= !(1 << layer);
        let layer = &mut self.nodes[layer as usize];
        layer.writer.clear();
        layer.left = None;
        layer.pending = None;
        layer.written = KeyRef::default();
    }

    pub(super) fn last_key(&self) -> Option<u32> {
        self.last_key
    }

    pub(super) fn tail(&self) -> Option<Subtree> {
        self.tail
    }

    /// Takes the subtree back that came last.
    pub(super) fn pop_tail(&mut self) -> Option<Subtree> {
        let tail = self.tail.take()?;
        let parent = tail.layer + 1;
        let layer = &mut self.nodes[parent as usize];
        if let Some(pending) = &mut layer.pending {
            pending.right = None;
        } else {
            layer.left = None;
            self.open &= !(1 << parent);
        }
        Some(tail)
    }

    /// Adds a subtree. What came last must be nothing, or a key of a higher layer.
    pub(super) fn push_subtree(&mut self, subtree: Subtree) {
        debug_assert!(self.tail.is_none(), "two subtrees side by side");
        debug_assert!(self.last_key.is_none_or(|layer| layer > subtree.layer), "not in a gap");
        self.link(subtree.layer, Link::Cid(subtree.cid));
        self.tail = Some(subtree);
    }

    /// Puts a link to a node of layer `below` where the layer above stands.
    fn link(&mut self, below: u32, link: Link) {
        let layer = &mut self.nodes[below as usize + 1];
        match &mut layer.pending {
            Some(pending) => pending.right = Some(link),
            None => layer.left = Some(link),
        }
        self.open |= 1 << (below + 1);
    }

    /// Adds a key. A subtree that came last must be of a lower layer.
    pub(super) fn push_key(
        &mut self,
        keys: &KeyArena,
        hashing: &mut impl Hashing,
        layer: u32,
        key: KeyRef,
        value: Cid,
    ) {
        debug_assert!(self.tail.is_none_or(|tail| tail.layer < layer), "subtree not closed");
        self.tail = None;
        self.close_below(keys, hashing, layer);
        self.flush(keys, layer);
        self.nodes[layer as usize].pending = Some(Pending { key, value, right: None });
        self.open |= 1 << layer;
        self.last_key = Some(layer);
        self.top = self.top.max(layer);
    }

    /// Writes the key that waits for its right link.
    fn flush(&mut self, keys: &KeyArena, layer: u32) {
        let layer = &mut self.nodes[layer as usize];
        if let Some(pending) = layer.pending.take() {
            let previous = keys.get(layer.written);
            let key = keys.get(pending.key);
            layer.writer.entry(previous, key, &pending.value, pending.right.as_ref());
            layer.written = pending.key;
        }
    }

    fn close_below(&mut self, keys: &KeyArena, hashing: &mut impl Hashing, layer: u32) {
        loop {
            let lowest = self.open.trailing_zeros();
            if lowest >= layer {
                return;
            }
            let node = self.close(keys, hashing, lowest);
            self.link(lowest, node);
        }
    }

    fn close(&mut self, keys: &KeyArena, hashing: &mut impl Hashing, layer: u32) -> Link {
        self.flush(keys, layer);
        let node = &mut self.nodes[layer as usize];
        let left = node.left;
        let (bytes, holes) = node.writer.finish(left.as_ref());
        let link = hashing.node(bytes, holes);
        self.reset(layer);
        link
    }

    /// The root of all that was added; `None` if there was no key.
    pub(super) fn finish(&mut self, keys: &KeyArena, hashing: &mut impl Hashing) -> Option<Link> {
        self.last_key?;
        self.close_below(keys, hashing, self.top);
        Some(self.close(keys, hashing, self.top))
    }
}
