//! Undoing a commit's operations: from the root after to the root before.
//!
//! The new tree is walked in order, but only where an operation leads; every other subtree is taken
//! as a whole. Keys and subtrees go, with the operations undone, into [`Layers`], which puts the
//! old tree together. Where removing a key joins two subtrees, or a key that comes back cuts one,
//! the seam is opened node by node: just the nodes that a commit must bring.

use std::ops::Range;

use super::{
    EMPTY_ROOT, LAYER_MAX, MstError, key_layer,
    layers::{Layers, Subtree},
    node::{self, Entry, KeyArena, KeyRef},
    unhashed::{AtOnce, Hashing, Link, Undone, Unhashed},
};
use crate::{
    car::BlockMap,
    cid::Cid,
    frame::{Action, Op, Ops},
};

/// What an inversion works in: kept from event to event, so that it allocates nothing.
#[derive(Debug, Default)]
pub struct Scratch {
    keys: KeyArena,
    edits: Vec<Edit>,
    entries: Vec<Entry>,
    layers: Layers,
}

/// An operation to undo.
#[derive(Clone, Copy, Debug)]
struct Edit {
    key: KeyRef,
    undo: Undo,
}

#[derive(Clone, Copy, Debug)]
enum Undo {
    /// A create: the key goes.
    Remove { cid: Cid },
    /// An update: the old value comes back.
    Replace { cid: Cid, prev: Cid },
    /// A delete: the key comes back.
    Insert { prev: Cid },
}

/// The root of the tree before `ops`, given the root after them and the nodes in `blocks`.
///
/// The order of the operations plays no part. Operations are checked against the tree: created and
/// updated paths must be there with their CIDs, deleted paths must not.
pub fn invert(
    root: Cid,
    ops: Ops<'_>,
    blocks: &BlockMap<'_>,
    scratch: &mut Scratch,
) -> Result<Cid, MstError> {
    match walk(root, ops, blocks, scratch, &mut AtOnce)? {
        Link::Cid(cid) => Ok(cid),
        Link::Node(_) => unreachable!("what is hashed at once has its CID"),
    }
}

/// As [`invert`], but what is to be hashed is left to `unhashed`: the root is known after
/// [`Unhashed::hash`], and then only whether each key stands on the layer of its node.
///
/// # Errors
/// As for [`invert`], but as keys count as right until they are hashed, the error may be another one.
pub fn invert_later(
    root: Cid,
    ops: Ops<'_>,
    blocks: &BlockMap<'_>,
    scratch: &mut Scratch,
    unhashed: &mut Unhashed,
) -> Result<Undone, MstError> {
    let mark = unhashed.mark();
    match walk(root, ops, blocks, scratch, unhashed) {
        Ok(root) => Ok(unhashed.undone(root, mark.1)),
        Err(error) => {
            unhashed.back_to(mark);
            Err(error)
        }
    }
}

fn walk<H: Hashing>(
    root: Cid,
    ops: Ops<'_>,
    blocks: &BlockMap<'_>,
    scratch: &mut Scratch,
    hashing: &mut H,
) -> Result<Link, MstError> {
    if ops.is_empty() {
        return Ok(Link::Cid(root));
    }
    scratch.clear();
    scratch.load(ops)?;
    let edits = 0..scratch.edits.len();
    let mut walk = Walk { blocks, scratch, hashing };
    if root == EMPTY_ROOT {
        walk.gap(None, 0, None, None, edits)?;
    } else {
        let block = walk.block(&root)?;
        let first = node::first_key(block)?.ok_or(MstError::Malformed)?;
        let layer = key_layer(first);
        if layer > LAYER_MAX {
            return Err(MstError::Malformed);
        }
        walk.open(Subtree { cid: root, layer, low: None, high: None }, edits)?;
    }
    walk.finish()
}

impl Scratch {
    /// Frees what a large event took, so that one such event does not hold memory forever.
    fn clear(&mut self) {
        const EDITS_KEPT: usize = 256;
        const ENTRIES_KEPT: usize = 4_096;
        self.keys.clear();
        self.edits.clear();
        self.edits.shrink_to(EDITS_KEPT);
        self.entries.clear();
        self.entries.shrink_to(ENTRIES_KEPT);
        self.layers.clear();
    }

    /// Takes the operations over, sorted by path.
    fn load(&mut self, ops: Ops<'_>) -> Result<(), MstError> {
        for op in &ops {
            if op.path.is_empty() || op.path.len() > node::KEY_BYTES_MAX {
                return Err(MstError::OpInvalid);
            }
            let key = self.keys.push(KeyRef::default(), 0, op.path.as_bytes())?;
            self.edits.push(Edit { key, undo: undo(&op)? });
        }
        let Self { keys, edits, .. } = self;
        edits.sort_unstable_by(|a, b| keys.get(a.key).cmp(keys.get(b.key)));
        let repeated = edits.windows(2).any(|pair| keys.get(pair[0].key) == keys.get(pair[1].key));
        if repeated { Err(MstError::OpInvalid) } else { Ok(()) }
    }
}

fn undo(op: &Op<'_>) -> Result<Undo, MstError> {
    match (op.action, op.cid, op.prev) {
        (Action::Create, Some(cid), None) => Ok(Undo::Remove { cid }),
        (Action::Update, Some(cid), Some(prev)) => Ok(Undo::Replace { cid, prev }),
        (Action::Delete, None, Some(prev)) => Ok(Undo::Insert { prev }),
        _ => Err(MstError::OpInvalid),
    }
}

/// A node that has been read.
struct Node<'b> {
    block: &'b [u8],
    left: Option<Cid>,
    /// Its entries in the scratch.
    own: Range<usize>,
}

struct Walk<'w, 'b, H> {
    blocks: &'w BlockMap<'b>,
    scratch: &'w mut Scratch,
    hashing: &'w mut H,
}

impl<'b, H: Hashing> Walk<'_, 'b, H> {
    fn block(&self, cid: &Cid) -> Result<&'b [u8], MstError> {
        self.blocks.get_dag_cbor(cid).ok_or(MstError::Missing)
    }

    /// Reads a node behind the entries read so far. Checks what a node alone cannot show: layers, and the bounds of keys.
    fn read(&mut self, subtree: &Subtree) -> Result<Node<'b>, MstError> {
        let block = self.block(&subtree.cid)?;
        let Scratch { keys, entries, .. } = &mut *self.scratch;
        let start = entries.len();
        let left = node::link_at(block, node::read(block, keys, entries)?)?;
        let own = &entries[start..];
        let hashing = &mut *self.hashing;
        if !own.iter().all(|entry| hashing.is_on_layer(keys.get(entry.key), subtree.layer)) {
            return Err(MstError::Malformed);
        }
        // A node without keys only keeps layers together: it hangs above another one.
        let valid = match (own.first(), own.last()) {
            (Some(first), Some(last)) => {
                subtree.low.is_none_or(|low| keys.get(low) < keys.get(first.key))
                    && subtree.high.is_none_or(|high| keys.get(last.key) < keys.get(high))
            }
            _ => left.is_some(),
        };
        if valid {
            Ok(Node { block, left, own: start..entries.len() })
        } else {
            Err(MstError::Malformed)
        }
    }

    /// Walks through a node, whether or not there is something to undo.
    fn open(&mut self, subtree: Subtree, edits: Range<usize>) -> Result<(), MstError> {
        let Node { block, left: mut link, own } = self.read(&subtree)?;
        let Subtree { layer, mut low, high, .. } = subtree;
        let mut edits = edits;
        for index in own.clone() {
            let entry = self.scratch.entries[index];
            let below = self.edits_below(entry.key, edits.clone());
            let at_entry = below.end;
            self.gap(link, layer, low, Some(entry.key), below)?;
            edits.start = at_entry;
            let value = entry.value(block)?;
            if self.edit_is_at(entry.key, &edits) {
                self.undo_at(layer, edits.start, value)?;
                edits.start += 1;
            } else {
                self.key(layer, entry.key, value)?;
            }
            low = Some(entry.key);
            link = entry.link(block)?;
        }
        self.gap(link, layer, low, high, edits)?;
        self.scratch.entries.truncate(own.start);
        Ok(())
    }

    fn edits_below(&self, key: KeyRef, edits: Range<usize>) -> Range<usize> {
        let Scratch { keys, edits: all, .. } = &*self.scratch;
        let key = keys.get(key);
        let below = all[edits.clone()].iter().take_while(|edit| keys.get(edit.key) < key).count();
        edits.start..edits.start + below
    }

    fn edit_is_at(&self, key: KeyRef, edits: &Range<usize>) -> bool {
        let Scratch { keys, edits: all, .. } = &*self.scratch;
        !edits.is_empty() && keys.get(all[edits.start].key) == keys.get(key)
    }

    /// Undoes an operation whose path the tree holds with `value`.
    fn undo_at(&mut self, layer: u32, edit: usize, value: Cid) -> Result<(), MstError> {
        let Edit { key, undo } = self.scratch.edits[edit];
        match undo {
            Undo::Remove { cid } if cid == value => Ok(()),
            Undo::Replace { cid, prev } if cid == value => self.key(layer, key, prev),
            _ => Err(MstError::Mismatch),
        }
    }

    /// What hangs between two keys of a node of `layer`.
    fn gap(
        &mut self,
        link: Option<Cid>,
        layer: u32,
        low: Option<KeyRef>,
        high: Option<KeyRef>,
        edits: Range<usize>,
    ) -> Result<(), MstError> {
        if let Some(cid) = link {
            let layer = layer.checked_sub(1).ok_or(MstError::Malformed)?;
            if !cid.is_dag_cbor() {
                return Err(MstError::Malformed);
            }
            let subtree = Subtree { cid, layer, low, high };
            return if edits.is_empty() { self.whole(subtree) } else { self.open(subtree, edits) };
        }
        for index in edits {
            let Edit { key, undo } = self.scratch.edits[index];
            let Undo::Insert { prev } = undo else { return Err(MstError::Mismatch) };
            let layer = key_layer(self.scratch.keys.get(key));
            self.key(layer, key, prev)?;
        }
        Ok(())
    }

    /// Adds a subtree as a whole, if it stands alone between keys of higher layers. If not, it
    /// joins with its neighbour, and is opened.
    fn whole(&mut self, subtree: Subtree) -> Result<(), MstError> {
        while let Some(tail) = self.scratch.layers.tail() {
            if tail.layer < subtree.layer {
                return self.open(subtree, 0..0);
            }
            self.open_tail()?;
        }
        if self.scratch.layers.last_key().is_some_and(|layer| layer <= subtree.layer) {
            return self.open(subtree, 0..0);
        }
        self.scratch.layers.push_subtree(subtree);
        Ok(())
    }

    fn open_tail(&mut self) -> Result<(), MstError> {
        match self.scratch.layers.pop_tail() {
            Some(tail) => self.open(tail, 0..0),
            None => Ok(()),
        }
    }

    /// Adds a key.
    fn key(&mut self, layer: u32, key: KeyRef, value: Cid) -> Result<(), MstError> {
        if layer > LAYER_MAX {
            return Err(MstError::Malformed);
        }
        while self.scratch.layers.tail().is_some_and(|tail| tail.layer >= layer) {
            self.open_tail()?;
        }
        let Scratch { keys, layers, .. } = &mut *self.scratch;
        layers.push_key(keys, self.hashing, layer, key, value);
        Ok(())
    }

    fn finish(mut self) -> Result<Link, MstError> {
        let Scratch { keys, layers, .. } = &mut *self.scratch;
        if let Some(root) = layers.finish(keys, self.hashing) {
            return Ok(root);
        }
        let root = match layers.pop_tail() {
            Some(subtree) => self.strip(subtree)?,
            None => EMPTY_ROOT,
        };
        Ok(Link::Cid(root))
    }

    /// The root when one subtree is all that is left: it, or if it has no keys what hangs below.
    fn strip(&mut self, mut subtree: Subtree) -> Result<Cid, MstError> {
        loop {
            let Node { left, own, .. } = self.read(&subtree)?;
            match left {
                Some(cid) if own.is_empty() => {
                    let layer = subtree.layer.checked_sub(1).ok_or(MstError::Malformed)?;
                    subtree = Subtree { cid, layer, ..subtree };
                }
                _ => return Ok(subtree.cid),
            }
        }
    }
}
