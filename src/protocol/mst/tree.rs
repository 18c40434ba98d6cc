//! A whole tree in memory, for those who make commits: the load generator and tests.
//!
//! Nodes remember their CIDs, so that after a change only the nodes on its path are hashed again.

use super::{EMPTY_ROOT, key_layer, node::NodeWriter, unhashed::Link as Known};
use crate::cid::Cid;

type Link = Option<Box<Node>>;

/// A repository's tree.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    root: Link,
    writer: NodeWriter,
}

#[derive(Clone, Debug)]
struct Node {
    layer: u32,
    left: Link,
    entries: Vec<Entry>,
    /// Known unless the node or what hangs below it has changed.
    cid: Option<Cid>,
}

#[derive(Clone, Debug)]
struct Entry {
    key: Box<[u8]>,
    value: Cid,
    right: Link,
}

impl Tree {
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Option<Cid> {
        let mut node = self.root.as_ref()?;
        loop {
            match node.search(key) {
                Ok(index) => return Some(node.entries[index].value),
                Err(index) => node = node.link(index).as_ref()?,
            }
        }
    }

    /// Sets a key, which must not be empty, and gives its value from before.
    pub fn insert(&mut self, key: &[u8], value: Cid) -> Option<Cid> {
        let layer = key_layer(key);
        let root = match self.root.take() {
            None => return self.plant(None, layer, key, value, None),
            Some(root) if root.layer < layer => {
                let height = root.layer;
                let (left, right) = split(Some(root), key);
                let left = raise(left, height, layer);
                let right = raise(right, height, layer);
                return self.plant(left, layer, key, value, right);
            }
            Some(root) => root,
        };
        let root = self.root.insert(root);
        root.insert(layer, key, value)
    }

    fn plant(
        &mut self,
        left: Link,
        layer: u32,
        key: &[u8],
        value: Cid,
        right: Link,
    ) -> Option<Cid> {
        let entries = vec![Entry { key: key.into(), value, right }];
        self.root = Some(Box::new(Node { layer, left, entries, cid: None }));
        None
    }

    /// Takes a key away and gives its value.
    pub fn remove(&mut self, key: &[u8]) -> Option<Cid> {
        let removed = self.root.as_mut()?.remove(key)?;
        // The top has keys, or the tree is lower.
        while let Some(root) = self.root.take_if(|root| root.entries.is_empty()) {
            self.root = root.left;
        }
        Some(removed)
    }

    /// The root's CID.
    pub fn root(&mut self) -> Cid {
        match &mut self.root {
            Some(root) => root.update(&mut self.writer),
            None => EMPTY_ROOT,
        }
    }

    /// All keys and values, in order.
    pub fn entries(&self) -> Vec<(&[u8], Cid)> {
        let mut entries = Vec::new();
        if let Some(root) = &self.root {
            root.list(&mut entries);
        }
        entries
    }

    /// All nodes, parents first.
    pub fn nodes(&mut self) -> Vec<(Cid, Vec<u8>)> {
        self.collect(true, &[])
    }

    /// The nodes, parents first, that a commit must bring which has changed these keys and led to
    /// this tree: those on the paths of the keys, and of the keys next to them.
    pub fn proof(&mut self, keys: &[&[u8]]) -> Vec<(Cid, Vec<u8>)> {
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        self.collect(false, &keys)
    }

    fn collect(&mut self, all: bool, keys: &[&[u8]]) -> Vec<(Cid, Vec<u8>)> {
        let root = self.root();
        let mut nodes = Vec::new();
        match &self.root {
            Some(node) => {
                let spines = Spines::default();
                node.collect(keys, spines, all, &mut self.writer, &mut nodes);
            }
            None => {
                self.writer.clear();
                nodes.push((root, self.writer.finish(None).0.to_vec()));
            }
        }
        nodes
    }
}

/// Whether the outermost links of a node are to be followed on either side.
#[derive(Clone, Copy, Default)]
struct Spines {
    left: bool,
    right: bool,
}

impl Node {
    fn search(&self, key: &[u8]) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| (*entry.key).cmp(key))
    }

    /// The link in front of the entry `index`; behind the last entry for their count.
    fn link(&self, index: usize) -> &Link {
        match index.checked_sub(1) {
            Some(before) => &self.entries[before].right,
            None => &self.left,
        }
    }

    fn link_mut(&mut self, index: usize) -> &mut Link {
        match index.checked_sub(1) {
            Some(before) => &mut self.entries[before].right,
            None => &mut self.left,
        }
    }

    fn insert(&mut self, layer: u32, key: &[u8], value: Cid) -> Option<Cid> {
        self.cid = None;
        let index = match self.search(key) {
            Ok(index) => {
                let before = std::mem::replace(&mut self.entries[index].value, value);
                return Some(before);
            }
            Err(index) => index,
        };
        if self.layer > layer {
            let height = self.layer;
            let link = self.link_mut(index);
            if let Some(child) = link {
                return child.insert(layer, key, value);
            }
            let entries = vec![Entry { key: key.into(), value, right: None }];
            let leaf = Box::new(Self { layer, left: None, entries, cid: None });
            *link = raise(Some(leaf), layer, height);
            return None;
        }
        let (left, right) = split(self.link_mut(index).take(), key);
        *self.link_mut(index) = left;
        self.entries.insert(index, Entry { key: key.into(), value, right });
        None
    }

    fn remove(&mut self, key: &[u8]) -> Option<Cid> {
        let removed = match self.search(key) {
            Ok(index) => {
                let Entry { value, right, .. } = self.entries.remove(index);
                let left = self.link_mut(index).take();
                *self.link_mut(index) = merge(left, right);
                value
            }
            Err(index) => {
                let link = self.link_mut(index);
                let removed = link.as_mut()?.remove(key)?;
                link.take_if(|child| child.is_void());
                removed
            }
        };
        self.cid = None;
        Some(removed)
    }

    fn is_void(&self) -> bool {
        self.entries.is_empty() && self.left.is_none()
    }

    fn update(&mut self, writer: &mut NodeWriter) -> Cid {
        if let Some(cid) = self.cid {
            return cid;
        }
        for index in 0..=self.entries.len() {
            if let Some(child) = self.link_mut(index) {
                child.update(writer);
            }
        }
        let cid = Cid::of_dag_cbor(self.encode(writer));
        self.cid = Some(cid);
        cid
    }

    /// The node's bytes. The CIDs below it must be known.
    fn encode<'w>(&self, writer: &'w mut NodeWriter) -> &'w [u8] {
        let known = |link: &Link| link.as_ref().and_then(|node| node.cid).map(Known::Cid);
        writer.clear();
        let mut previous: &[u8] = &[];
        for entry in &self.entries {
            let right = known(&entry.right);
            writer.entry(previous, &entry.key, &entry.value, right.as_ref());
            previous = &entry.key;
        }
        writer.finish(known(&self.left).as_ref()).0
    }

    fn list<'t>(&'t self, entries: &mut Vec<(&'t [u8], Cid)>) {
        for index in 0..=self.entries.len() {
            if let Some(child) = self.link(index) {
                child.list(entries);
            }
            if let Some(entry) = self.entries.get(index) {
                entries.push((&entry.key, entry.value));
            }
        }
    }

    /// `keys` are the wanted ones that fall into this node's range, sorted.
    fn collect(
        &self,
        mut keys: &[&[u8]],
        spines: Spines,
        all: bool,
        writer: &mut NodeWriter,
        nodes: &mut Vec<(Cid, Vec<u8>)>,
    ) {
        if let Some(cid) = self.cid {
            nodes.push((cid, self.encode(writer).to_vec()));
        }
        let mut hit_before = false;
        for index in 0..=self.entries.len() {
            let entry = self.entries.get(index);
            let below =
                entry.map_or(keys.len(), |entry| keys.partition_point(|key| **key < *entry.key));
            let (inside, rest) = keys.split_at(below);
            let hits =
                entry.map_or(0, |entry| rest.iter().take_while(|key| ***key == *entry.key).count());
            let spines = Spines {
                left: hit_before || (index == 0 && spines.left),
                right: hits > 0 || (entry.is_none() && spines.right),
            };
            let wanted = all || !inside.is_empty() || spines.left || spines.right;
            if let (Some(child), true) = (self.link(index), wanted) {
                child.collect(inside, spines, all, writer, nodes);
            }
            hit_before = hits > 0;
            keys = &rest[hits..];
        }
    }
}

/// Cuts a subtree into what is below `key` and what is above it.
fn split(link: Link, key: &[u8]) -> (Link, Link) {
    let Some(mut node) = link else { return (None, None) };
    let index = node.entries.partition_point(|entry| *entry.key < *key);
    let (below, above) = split(node.link_mut(index).take(), key);
    if index == node.entries.len() && above.is_none() {
        *node.link_mut(index) = below;
        return (Some(node), None);
    }
    if index == 0 && below.is_none() {
        node.left = above;
        return (None, Some(node));
    }
    let entries = node.entries.split_off(index);
    let right = Node { layer: node.layer, left: above, entries, cid: None };
    *node.link_mut(index) = below;
    node.cid = None;
    let full = |node: Box<Node>| if node.is_void() { None } else { Some(node) };
    (full(node), full(Box::new(right)))
}

/// Joins two subtrees of the same layer between which a key was taken away.
fn merge(left: Link, right: Link) -> Link {
    match (left, right) {
        (Some(mut left), Some(mut right)) => {
            let seam = left.entries.len();
            let inner = left.link_mut(seam).take();
            *left.link_mut(seam) = merge(inner, right.left.take());
            left.entries.append(&mut right.entries);
            left.cid = None;
            Some(left)
        }
        (left, right) => left.or(right),
    }
}

/// Puts nodes without keys on top of a subtree of layer `from`, so that it can hang in `to`.
fn raise(link: Link, from: u32, to: u32) -> Link {
    let mut node = link?;
    for layer in from + 1..to {
        node = Box::new(Node { layer, left: Some(node), entries: Vec::new(), cid: None });
    }
    Some(node)
}
