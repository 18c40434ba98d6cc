//! What can be checked of a frame by itself: form, limits, syntax, blocks, commit, operations.
//!
//! Nothing here depends on an account, so a frame is checked once, and leaves a small [`Checked`]
//! behind. Undoing the operations is done here too: it costs less than the signature, and compares the
//! commit with its *own* `prevData`; whether that continues what we hold of the account is seen
//! later.
//!
//! The frames of a turn are checked together, because hashing is half of the work and is done many at
//! a time: first the blocks of all, then, as far as frames got, the trees before their operations.
//! What is found of a frame is the same as if it were alone.

use std::{
    hash::{BuildHasher, Hasher},
    ops::Range,
};

use foldhash::quality::RandomState;
use ports::{EventKind, RefusalReason, RepoHead, StatusWord, Strictness, UpstreamStatus};
use protocol::{
    Cid, DecodeError, DecodeErrorKind,
    car::{BlockHasher, BlockMap, BlockTable, Cars},
    cbor, commit,
    frame::{self, AccountEvent, Action, Body, CommitEvent, Event, Ops, SyncEvent},
    mst,
    syntax::{DidMethod, Tid, datetime, did, repo_path},
};

use super::{Pending, WallTime, collections::Collections};
use crate::upstream::RawFrame;

/// How far a rev may be ahead of our clock.
const REV_AHEAD_MICROS: u64 = 5 * 60 * 1_000_000;

/// A commit block: no larger than what a #sync may carry, so that what is signed can be kept for
/// a whole turn.
const COMMIT_BYTES_MAX: usize = frame::SYNC_BLOCKS_BYTES_MAX;

/// So much waits for its hashes at most, but for what one frame brings.
const UNHASHED_BYTES_MAX: usize = 1 << 20;

/// A frame that is right by itself.
#[derive(Debug)]
pub(super) struct Checked {
    /// The bytes of the `seq` integer in the frame.
    pub(super) seq_span: Range<u32>,
    pub(super) body: CheckedBody,
}

#[derive(Debug)]
pub(super) enum CheckedBody {
    Commit(CheckedCommit),
    Sync(Signed),
    /// With the hash of the event's handle.
    Identity {
        handle: Option<u32>,
        /// `None` if there is no such time.
        time_micros: Option<i64>,
    },
    Account {
        status: UpstreamStatus,
        /// The hash of a status that we don't know, else 0.
        word: u16,
        time_micros: Option<i64>,
    },
}

impl CheckedBody {
    /// The signature to check, of the two kinds that have one.
    pub(super) fn signed(&self) -> Option<&Signed> {
        match self {
            Self::Commit(commit) => Some(&commit.signed),
            Self::Sync(signed) => Some(signed),
            Self::Identity { .. } | Self::Account { .. } => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct CheckedCommit {
    pub(super) signed: Signed,
    pub(super) tree: Tree,
    /// See [`Collections::mask`].
    pub(super) collections: u64,
    /// Fields are missing that the lexicon requires.
    pub(super) lacks_defaults: bool,
}

/// A signed commit object, not yet verified.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) head: RepoHead,
    pub(super) signature: [u8; 64],
    /// Where the signed bytes stand among the messages of the turn.
    message: Range<u32>,
}

/// What undoing the commit's operations has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tree {
    /// The commit's own `prevData`, with this digest.
    PrevData([u8; 32]),
    /// There is no `prevData`, and the repository was empty before.
    Empty,
    /// There is no `prevData` (or no `prev` of an operation) to compare with.
    Unchecked { since_is_null: bool },
    /// Not known yet; only within this module.
    Unhashed,
}

/// A commit whose operations are undone, but for the hashes.
#[derive(Debug)]
struct Hanging {
    /// Which of the turn's frames.
    frame: usize,
    /// The root of its tree.
    data: Cid,
    undone: mst::Undone,
}

/// The frames of a turn, as far as they have been read.
struct Turn<'t> {
    frames: &'t [Pending],
    events: &'t [Result<Event<'t>, RefusalReason>],
    cars: &'t Cars<'t>,
    now: WallTime,
}

impl<'t> Turn<'t> {
    fn commit(&self, at: usize) -> Option<&'t CommitEvent<'t>> {
        match &self.events[at].as_ref().ok()?.body {
            Body::Commit(commit) => Some(commit),
            _ => None,
        }
    }
}

/// Checks frames, and keeps what it takes for that from frame to frame.
#[derive(Debug, Default)]
pub(super) struct Checker {
    blocks: BlockTable,
    block_hasher: BlockHasher,
    events: Vec<Result<Event<'static>, RefusalReason>>,
    tree: mst::Scratch,
    unhashed: mst::Unhashed,
    hanging: Vec<Hanging>,
    path_hashes: Vec<u64>,
    unsigned: Vec<u8>,
    /// The signed bytes of all commits of the turn.
    messages: Vec<u8>,
    hasher: RandomState,
}

impl Checker {
    /// Forgets the messages of the last turn.
    pub(super) fn begin_turn(&mut self) {
        /// More than this is not kept for the next turn.
        const MESSAGES_BYTES_KEPT: usize = 1 << 20;
        self.messages.clear();
        self.messages.shrink_to(MESSAGES_BYTES_KEPT);
    }

    /// The bytes that were signed, for as long as the turn lasts.
    pub(super) fn message(&self, signed: &Signed) -> &[u8] {
        &self.messages[signed.message.start as usize..signed.message.end as usize]
    }

    /// Hash of a handle or the like, never zero. Handles don't know upper case.
    pub(super) fn text_hash(&self, text: &str) -> u32 {
        let mut hasher = self.hasher.build_hasher();
        text.bytes().for_each(|byte| hasher.write_u8(byte.to_ascii_lowercase()));
        (hasher.finish() as u32).max(1)
    }

    /// Checks the frames, and leaves what was found of each in `checked`, in their order.
    pub(super) fn check(
        &mut self,
        frames: &[Pending],
        collections: &Collections,
        now: WallTime,
        checked: &mut Vec<Result<Checked, RefusalReason>>,
    ) {
        let mut events: Vec<Result<Event<'_>, _>> = std::mem::take(&mut self.events);
        let mut hasher = std::mem::take(&mut self.block_hasher);
        events.extend(frames.iter().map(|pending| parse(&pending.frame)));
        let files = events.iter().map(|event| event.as_ref().map_or(&[][..], blocks_of));
        let cars = hasher.hash(files);
        let turn = Turn { frames, events: &events, cars: &cars, now };
        checked.clear();
        for at in 0..frames.len() {
            checked.push(self.check_frame(&turn, at, collections));
            if self.unhashed.bytes() > UNHASHED_BYTES_MAX {
                self.compare_trees(&turn, checked);
            }
        }
        self.compare_trees(&turn, checked);
        drop(cars);
        self.block_hasher = hasher;
        self.events = emptied(events);
    }

    fn check_frame(
        &mut self,
        turn: &Turn<'_>,
        at: usize,
        collections: &Collections,
    ) -> Result<Checked, RefusalReason> {
        let event = turn.events[at].as_ref().map_err(|reason| *reason)?;
        let body = match &event.body {
            Body::Commit(commit) => {
                let mut checked = self.commit(turn, at, event.did, commit)?;
                checked.collections = collections.mask(commit.ops);
                CheckedBody::Commit(checked)
            }
            Body::Sync(sync) => CheckedBody::Sync(self.sync(turn, at, event.did, sync)?),
            Body::Identity(identity) => CheckedBody::Identity {
                handle: identity.handle.map(|handle| self.text_hash(handle)),
                time_micros: datetime::unix_micros(event.time),
            },
            Body::Account(account) => self.status(account, event.time),
        };
        let kind = turn.frames[at].frame.kind();
        debug_assert_eq!(kind, kind_of(&event.body), "skim and parse agree");
        Ok(Checked { seq_span: event.seq_span.start as u32..event.seq_span.end as u32, body })
    }

    /// Hashes what waits for it, and holds the trees against what the commits say of them.
    fn compare_trees(&mut self, turn: &Turn<'_>, checked: &mut [Result<Checked, RefusalReason>]) {
        self.unhashed.hash();
        let mut hanging = std::mem::take(&mut self.hanging);
        for waited in hanging.drain(..) {
            let Some(event) = turn.commit(waited.frame) else { continue };
            let root = match self.unhashed.root(&waited.undone) {
                Some(root) => Ok(root),
                None => self.invert(turn, event, &waited),
            };
            match (compare(event, root), &mut checked[waited.frame]) {
                (Ok(tree), Ok(Checked { body: CheckedBody::Commit(commit), .. })) => {
                    commit.tree = tree;
                }
                (Ok(_), _) => {}
                (Err(reason), checked) => *checked = Err(reason),
            }
        }
        self.hanging = hanging;
        self.unhashed.clear();
    }

    /// Undoes operations once more, hashing at once: only so it can be told what is wrong first.
    fn invert(
        &mut self,
        turn: &Turn<'_>,
        event: &CommitEvent<'_>,
        waited: &Hanging,
    ) -> Result<Cid, RefusalReason> {
        let blocks = turn.cars.load(waited.frame, &mut self.blocks).map_err(car_reason)?;
        mst::invert(waited.data, event.ops, &blocks, &mut self.tree).map_err(tree_reason)
    }

    fn status(&self, account: &AccountEvent<'_>, time: &str) -> CheckedBody {
        let word = account.status.map_or(StatusWord::None, StatusWord::parse);
        let hash = match (word, account.status) {
            (StatusWord::Other, Some(text)) => self.text_hash(text) as u16,
            _ => 0,
        };
        let status = UpstreamStatus { active: account.active, word };
        CheckedBody::Account { status, word: hash, time_micros: datetime::unix_micros(time) }
    }

    fn sync(
        &mut self,
        turn: &Turn<'_>,
        at: usize,
        did: &str,
        event: &SyncEvent<'_>,
    ) -> Result<Signed, RefusalReason> {
        if event.blocks.len() > frame::SYNC_BLOCKS_BYTES_MAX {
            return Err(RefusalReason::BlocksTooLarge);
        }
        let rev = check_rev(event.rev, turn.now)?;
        let Self { blocks, unsigned, messages, .. } = self;
        let blocks = turn.cars.load(at, blocks).map_err(car_reason)?;
        let claim = Claim { did, rev: event.rev, commit: None };
        let (_, signed) = read_commit(&blocks, &claim, rev, unsigned, messages)?;
        Ok(signed)
    }

    fn commit(
        &mut self,
        turn: &Turn<'_>,
        at: usize,
        did: &str,
        event: &CommitEvent<'_>,
    ) -> Result<CheckedCommit, RefusalReason> {
        if event.blocks.len() > frame::COMMIT_BLOCKS_BYTES_MAX {
            return Err(RefusalReason::BlocksTooLarge);
        }
        if event.ops.len() > frame::OPS_MAX {
            return Err(RefusalReason::OpsTooMany);
        }
        let rev = check_rev(event.rev, turn.now)?;
        self.check_ops(event.ops)?;
        let Self { blocks, unsigned, messages, .. } = self;
        let blocks = turn.cars.load(at, blocks).map_err(car_reason)?;
        let claim = Claim { did, rev: event.rev, commit: Some(event.commit) };
        let (data, signed) = read_commit(&blocks, &claim, rev, unsigned, messages)?;
        check_records(event.ops, &blocks)?;
        let Self { tree, unhashed, hanging, .. } = self;
        let strictness = turn.frames[at].frame.strictness();
        let tree = match undo(event, data, &blocks, strictness, (tree, unhashed))? {
            Undoing::Known(tree) => tree,
            Undoing::Waits(undone) => {
                hanging.push(Hanging { frame: at, data, undone });
                Tree::Unhashed
            }
        };
        let lacks_defaults = event.lacks_defaults;
        Ok(CheckedCommit { signed, tree, collections: 0, lacks_defaults })
    }

    /// Every path is one, and stands there once; what is created was not there before.
    fn check_ops(&mut self, ops: Ops<'_>) -> Result<(), RefusalReason> {
        let Self { path_hashes, hasher, .. } = self;
        path_hashes.clear();
        for op in &ops {
            let created_from_something = op.action == Action::Create && op.prev.is_some();
            if created_from_something || !repo_path::check(op.path) {
                return Err(RefusalReason::OpInvalid);
            }
            path_hashes.push(hasher.hash_one(op.path));
        }
        path_hashes.sort_unstable();
        // Equal hashes of different paths: once in 10^15 commits of 200 operations.
        if path_hashes.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(RefusalReason::OpInvalid);
        }
        Ok(())
    }
}

/// What the event says of the commit in it.
struct Claim<'a> {
    did: &'a str,
    rev: &'a str,
    /// A #sync does not say.
    commit: Option<Cid>,
}

/// Finds the commit, holds it against what the event says, and keeps what was signed. Gives the
/// root of its tree beside.
fn read_commit(
    blocks: &BlockMap<'_>,
    claim: &Claim<'_>,
    rev: Tid,
    unsigned: &mut Vec<u8>,
    messages: &mut Vec<u8>,
) -> Result<(Cid, Signed), RefusalReason> {
    let root = blocks.root();
    let block = blocks.get_dag_cbor(&root).ok_or(RefusalReason::CommitMissing)?;
    if block.len() > COMMIT_BYTES_MAX {
        return Err(RefusalReason::CommitMalformed);
    }
    let commit = commit::parse(block).map_err(|_| RefusalReason::CommitMalformed)?;
    let same = commit.did == claim.did
        && commit.rev == claim.rev
        && claim.commit.is_none_or(|cid| cid == root);
    if !same {
        return Err(RefusalReason::CommitMismatch);
    }
    commit.unsigned_bytes(unsigned);
    let start = messages.len() as u32;
    messages.extend_from_slice(unsigned);
    let head = RepoHead { rev: rev.as_u64(), data: commit.data.digest(), commit: root.digest() };
    let message = start..messages.len() as u32;
    Ok((commit.data, Signed { head, signature: *commit.sig, message }))
}

fn check_rev(rev: &str, now: WallTime) -> Result<Tid, RefusalReason> {
    let rev = Tid::parse(rev).ok_or(RefusalReason::RevSyntax)?;
    if rev.micros() > now.micros().saturating_add(REV_AHEAD_MICROS) {
        return Err(RefusalReason::RevFuture);
    }
    Ok(rev)
}

/// The record of each create and update is there. What it says is not looked at.
fn check_records(ops: Ops<'_>, blocks: &BlockMap<'_>) -> Result<(), RefusalReason> {
    for op in ops.iter().filter(|op| op.action != Action::Delete) {
        let cid = op.cid.ok_or(RefusalReason::OpInvalid)?;
        let record = blocks.get(&cid).ok_or(RefusalReason::RecordMissing)?;
        if record.len() > frame::RECORD_BYTES_MAX {
            return Err(RefusalReason::RecordTooLarge);
        }
        cbor::check_record(record).map_err(|_| RefusalReason::RecordMalformed)?;
    }
    Ok(())
}

/// How far undoing has come.
enum Undoing {
    Known(Tree),
    Waits(mst::Undone),
}

fn undo(
    event: &CommitEvent<'_>,
    data: Cid,
    blocks: &BlockMap<'_>,
    strictness: Strictness,
    (scratch, unhashed): (&mut mst::Scratch, &mut mst::Unhashed),
) -> Result<Undoing, RefusalReason> {
    let unchecked = Ok(Undoing::Known(Tree::Unchecked { since_is_null: event.since.is_none() }));
    if event.prev_data.is_none() {
        // Only a first commit may do without; then there was nothing before.
        if event.since.is_some() {
            return unchecked;
        }
    } else if event.ops.iter().any(|op| op.action != Action::Create && op.prev.is_none()) {
        return match strictness {
            Strictness::Strict => Err(RefusalReason::OpInvalid),
            Strictness::Lenient => unchecked,
        };
    }
    match mst::invert_later(data, event.ops, blocks, scratch, unhashed) {
        Ok(undone) => Ok(Undoing::Waits(undone)),
        Err(_) => {
            // What is wrong first is told by hashing at once.
            let root = mst::invert(data, event.ops, blocks, scratch).map_err(tree_reason);
            compare(event, root).map(Undoing::Known)
        }
    }
}

/// What undoing has led to, held against what the commit says.
fn compare(
    event: &CommitEvent<'_>,
    before: Result<Cid, RefusalReason>,
) -> Result<Tree, RefusalReason> {
    match event.prev_data {
        Some(prev_data) if before? == prev_data => Ok(Tree::PrevData(prev_data.digest())),
        Some(_) => Err(RefusalReason::InversionMismatch),
        None if before == Ok(mst::EMPTY_ROOT) => Ok(Tree::Empty),
        None => Ok(Tree::Unchecked { since_is_null: event.since.is_none() }),
    }
}

/// The event in a frame, with all that can be said of it without its blocks.
fn parse(frame: &RawFrame) -> Result<Event<'_>, RefusalReason> {
    let event = frame::parse(frame.bytes()).map_err(frame_reason)?;
    match did::check(event.did) {
        Ok(DidMethod::Plc | DidMethod::Web) => {}
        Ok(DidMethod::Other) => return Err(RefusalReason::IdentityNotFound),
        Err(_) => return Err(RefusalReason::DidSyntax),
    }
    if datetime::check(event.time) { Ok(event) } else { Err(RefusalReason::TimeSyntax) }
}

/// The blocks to be hashed: none if there are none or too many.
fn blocks_of<'a>(event: &Event<'a>) -> &'a [u8] {
    let (blocks, bytes_max) = match &event.body {
        Body::Commit(commit) => (commit.blocks, frame::COMMIT_BLOCKS_BYTES_MAX),
        Body::Sync(sync) => (sync.blocks, frame::SYNC_BLOCKS_BYTES_MAX),
        Body::Identity(_) | Body::Account(_) => (&[][..], 0),
    };
    if blocks.len() > bytes_max { &[] } else { blocks }
}

/// The same room for events of other frames. (Collecting into a vector of the same type is done in
/// place.)
fn emptied(
    mut events: Vec<Result<Event<'_>, RefusalReason>>,
) -> Vec<Result<Event<'static>, RefusalReason>> {
    events.clear();
    events.into_iter().map_while(|_| None).collect()
}

fn kind_of(body: &Body<'_>) -> EventKind {
    match body {
        Body::Commit(_) => EventKind::Commit,
        Body::Sync(_) => EventKind::Sync,
        Body::Identity(_) => EventKind::Identity,
        Body::Account(_) => EventKind::Account,
    }
}

fn frame_reason(error: DecodeError) -> RefusalReason {
    match error.kind {
        DecodeErrorKind::FrameTooLarge => RefusalReason::FrameTooLarge,
        DecodeErrorKind::FrameUnknown => RefusalReason::FrameUnknown,
        DecodeErrorKind::OpInvalid => RefusalReason::OpInvalid,
        _ => RefusalReason::FrameMalformed,
    }
}

fn car_reason(error: DecodeError) -> RefusalReason {
    match error.kind {
        DecodeErrorKind::BlockHash => RefusalReason::BlockHash,
        _ => RefusalReason::CarMalformed,
    }
}

fn tree_reason(error: mst::MstError) -> RefusalReason {
    match error {
        mst::MstError::Mismatch => RefusalReason::InversionMismatch,
        mst::MstError::OpInvalid => RefusalReason::OpInvalid,
        _ => RefusalReason::TreeMalformed,
    }
}
