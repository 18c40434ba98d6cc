//! Inversion against whole trees: random trees and random commits, with nothing but the blocks that
//! a producer must send.

use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::{
    Cid,
    car::BlockTable,
    frame::{Action, Ops},
    mst::{EMPTY_ROOT, MstError, Scratch, tree::Tree},
};

use crate::data::{self, TestOp};

/// A commit on a tree: both roots, the operations, and the blocks for it.
struct Commit {
    before: Cid,
    after: Cid,
    ops: Vec<TestOp>,
    blocks: Vec<(Cid, Vec<u8>)>,
}

impl Commit {
    fn invert(&self, blocks: &[(Cid, Vec<u8>)], scratch: &mut Scratch) -> Result<Cid, MstError> {
        let car = data::encode_car(&self.after, blocks);
        let mut table = BlockTable::default();
        let map = table.load(&car).unwrap();
        let array = data::encode_ops(&self.ops);
        data::invert(self.after, Ops::parse(&array).unwrap(), &map, scratch)
    }
}

fn value(number: u64) -> Cid {
    Cid::of_dag_cbor(&number.to_be_bytes())
}

fn key(number: u32) -> String {
    format!("app.bsky.feed.post/{number:08x}")
}

/// Builds the tree of `keys`, then applies `changes`: a key that is there is deleted or updated,
/// one that is not is created. Each key changes once.
fn make_commit(keys: &[u32], changes: &BTreeMap<u32, bool>, shuffle: u64) -> Commit {
    let mut tree = Tree::default();
    for number in keys {
        tree.insert(key(*number).as_bytes(), value(u64::from(*number)));
    }
    let before = tree.root();
    let mut ops = Vec::new();
    for (number, update) in changes {
        let path = key(*number);
        let new = value(u64::from(*number) + (1 << 40));
        let op = match (tree.get(path.as_bytes()), update) {
            (None, _) => {
                assert_eq!(tree.insert(path.as_bytes(), new), None);
                TestOp { action: Action::Create, path, cid: Some(new), prev: None }
            }
            (prev, true) => {
                assert_eq!(tree.insert(path.as_bytes(), new), prev);
                TestOp { action: Action::Update, path, cid: Some(new), prev }
            }
            (prev, false) => {
                assert_eq!(tree.remove(path.as_bytes()), prev);
                TestOp { action: Action::Delete, path, cid: None, prev }
            }
        };
        ops.push(op);
    }
    ops.sort_by_key(|op| Cid::of_dag_cbor(&[&shuffle.to_be_bytes(), op.path.as_bytes()].concat()));
    let after = tree.root();
    let changed: Vec<&[u8]> = ops.iter().map(|op| op.path.as_bytes()).collect();
    let blocks = tree.proof(&changed);
    Commit { before, after, ops, blocks }
}

/// The tree as it would be if nothing had ever been removed from it.
fn rebuilt(tree: &Tree) -> Cid {
    let mut fresh = Tree::default();
    for (key, value) in tree.entries() {
        fresh.insert(key, value);
    }
    fresh.root()
}

fn changes(numbers: u32, count: usize) -> impl Strategy<Value = BTreeMap<u32, bool>> {
    prop::collection::btree_map(0..numbers, any::<bool>(), 1..count)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn leads_back_to_the_root_before(
        keys in prop::collection::vec(0u32..400, 0..200),
        changes in changes(400, 24),
        shuffle: u64,
    ) {
        let commit = make_commit(&keys, &changes, shuffle);
        let mut scratch = Scratch::default();
        prop_assert_eq!(commit.invert(&commit.blocks, &mut scratch), Ok(commit.before));
        // Blocks of other trees do no harm, nor does their order.
        let mut blocks = commit.blocks.clone();
        blocks.reverse();
        blocks.push((EMPTY_ROOT, b"\xa2\x61e\x80\x61l\xf6".to_vec()));
        prop_assert_eq!(commit.invert(&blocks, &mut scratch), Ok(commit.before));
    }

    #[test]
    fn small_trees_and_many_changes(
        keys in prop::collection::vec(0u32..12, 0..12),
        changes in changes(12, 12),
        shuffle: u64,
    ) {
        let commit = make_commit(&keys, &changes, shuffle);
        let mut scratch = Scratch::default();
        prop_assert_eq!(commit.invert(&commit.blocks, &mut scratch), Ok(commit.before));
    }

    /// Without a block the old root comes out all the same, or nothing does: never another root.
    #[test]
    fn a_missing_block_never_gives_a_wrong_root(
        keys in prop::collection::vec(0u32..300, 1..150),
        changes in changes(300, 12),
    ) {
        let commit = make_commit(&keys, &changes, 0);
        let mut scratch = Scratch::default();
        let root_missing = commit.invert(&commit.blocks[1..], &mut scratch);
        if commit.after != EMPTY_ROOT {
            prop_assert_eq!(root_missing, Err(MstError::Missing));
        }
        for missing in 0..commit.blocks.len() {
            let mut blocks = commit.blocks.clone();
            blocks.remove(missing);
            let root = commit.invert(&blocks, &mut scratch);
            prop_assert!(root == Err(MstError::Missing) || root == Ok(commit.before), "{root:?}");
        }
    }

    /// A false word in an operation is noticed.
    #[test]
    fn a_false_operation_never_leads_to_the_root_before(
        keys in prop::collection::vec(0u32..100, 0..80),
        changes in changes(100, 8),
        which: prop::sample::Index,
        how in 0..4,
    ) {
        let mut commit = make_commit(&keys, &changes, 0);
        let index = which.index(commit.ops.len());
        let op = &mut commit.ops[index];
        let other = value(1 << 50);
        match (how, op.action) {
            (0, Action::Create | Action::Update) => op.cid = Some(other),
            (0, Action::Delete) => op.prev = Some(other),
            (1, Action::Update) => op.prev = Some(other),
            (2, _) => drop(commit.ops.remove(index)),
            _ => op.path.push('x'),
        }
        let root = commit.invert(&commit.blocks, &mut Scratch::default());
        prop_assert_ne!(root, Ok(commit.before));
    }

    /// The tree is a function of its content, however it came about.
    #[test]
    fn trees_depend_on_content_only(
        keys in prop::collection::vec(0u32..200, 0..100),
        removed in prop::collection::vec(0u32..200, 0..100),
    ) {
        let mut tree = Tree::default();
        let mut model = BTreeMap::new();
        for number in keys {
            tree.insert(key(number).as_bytes(), value(u64::from(number)));
            model.insert(key(number), value(u64::from(number)));
            tree.root();
        }
        for number in removed {
            let removed = tree.remove(key(number).as_bytes());
            prop_assert_eq!(removed, model.remove(&key(number)));
            tree.root();
        }
        let entries: Vec<(&[u8], Cid)> =
            model.iter().map(|(key, value)| (key.as_bytes(), *value)).collect();
        prop_assert_eq!(tree.entries(), entries);
        prop_assert_eq!(tree.root(), rebuilt(&tree));
        prop_assert_eq!(tree.root() == EMPTY_ROOT, model.is_empty());
    }
}

#[test]
fn two_hundred_operations() {
    let keys: Vec<u32> = (0..2_000).map(|number| number * 3).collect();
    let changes: BTreeMap<u32, bool> =
        (0..200).map(|number| (number * 29, number % 2 == 0)).collect();
    let commit = make_commit(&keys, &changes, 7);
    assert_eq!(commit.ops.len(), 200);
    assert_eq!(commit.invert(&commit.blocks, &mut Scratch::default()), Ok(commit.before));
}

#[test]
fn from_and_to_the_empty_tree() {
    let all: BTreeMap<u32, bool> = (0..50).map(|number| (number, false)).collect();
    let keys: Vec<u32> = all.keys().copied().collect();
    let created = make_commit(&[], &all, 0);
    assert_eq!(created.before, EMPTY_ROOT);
    assert_eq!(created.invert(&created.blocks, &mut Scratch::default()), Ok(EMPTY_ROOT));
    let deleted = make_commit(&keys, &all, 0);
    assert_eq!(deleted.after, EMPTY_ROOT);
    assert_eq!(deleted.invert(&[], &mut Scratch::default()), Ok(deleted.before));
}

#[test]
fn a_path_may_change_only_once() {
    let mut commit = make_commit(&[1, 2, 3], &BTreeMap::from([(2, true)]), 0);
    commit.ops.push(commit.ops[0].clone());
    let root = commit.invert(&commit.blocks, &mut Scratch::default());
    assert_eq!(root, Err(MstError::OpInvalid));
}

#[test]
fn updates_and_deletes_need_prev() {
    for update in [true, false] {
        let mut commit = make_commit(&[1, 2, 3], &BTreeMap::from([(2, update)]), 0);
        commit.ops[0].prev = None;
        let root = commit.invert(&commit.blocks, &mut Scratch::default());
        assert_eq!(root, Err(MstError::OpInvalid));
    }
}
