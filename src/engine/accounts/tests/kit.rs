//! Repositories that make real signed commits, and a network around [`Accounts`]: a directory, a
//! store and a clock.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bytes::Bytes;
use ecdsa::{Curve, sign::SigningKey};
use ports::{
    AccountAnswer, AccountId, AccountLookup, AccountState, EventKind, HostId, HostSeq, Identity,
    IdentityAnswer, LocalStatus, LookupWhy, RefusalReason, RepoHead, ShardId, Strictness,
    UpstreamStatus,
};
use protocol::{
    Cid, car,
    cbor::write,
    commit,
    frame::{self, Body, FrameKind, Skim},
    mst::tree::Tree,
    syntax::Tid,
};

use super::super::{Accounts, AccountsConfig, Outcome, Verified, WallTime};
use crate::upstream::{FrameOrigin, FrameOutline, RawFrame};

/// 2026-11-25, the day of the captured frames.
pub(super) const TODAY: u64 = 1_795_600_000;
pub(super) const TIME: &str = "2026-11-25T00:00:00.000Z";

/// A field of an op: what a producer would send.
#[derive(Clone, Debug)]
pub(super) struct OpFrame {
    pub(super) action: &'static str,
    pub(super) path: String,
    pub(super) cid: Option<Cid>,
    pub(super) prev: Option<Cid>,
}

/// A #commit in parts, so that a test can spoil one of them.
#[derive(Clone, Debug)]
pub(super) struct CommitFrame {
    pub(super) repo: String,
    pub(super) rev: String,
    pub(super) since: Option<String>,
    pub(super) commit: Cid,
    pub(super) root: Cid,
    pub(super) prev_data: Option<Cid>,
    pub(super) blocks: Vec<(Cid, Vec<u8>)>,
    pub(super) ops: Vec<OpFrame>,
    pub(super) time: String,
    pub(super) defaults: bool,
}

fn header(t: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write::map(&mut out, 2);
    write::text(&mut out, "t");
    write::text(&mut out, t);
    write::text(&mut out, "op");
    write::unsigned(&mut out, 1);
    out
}

fn nullable(out: &mut Vec<u8>, cid: Option<Cid>) {
    match cid {
        Some(cid) => write::link(out, &cid),
        None => write::null(out),
    }
}

pub(super) fn car_of(root: &Cid, blocks: &[(Cid, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    car::write_header(&mut out, root);
    for (cid, data) in blocks {
        car::write_block(&mut out, cid, data);
    }
    out
}

impl OpFrame {
    fn write(&self, out: &mut Vec<u8>) {
        write::map(out, 3 + u64::from(self.prev.is_some()));
        write::text(out, "cid");
        nullable(out, self.cid);
        write::text(out, "path");
        write::text(out, &self.path);
        if let Some(prev) = self.prev {
            write::text(out, "prev");
            write::link(out, &prev);
        }
        write::text(out, "action");
        write::text(out, self.action);
    }
}

impl CommitFrame {
    pub(super) fn encode(&self, seq: u64) -> Vec<u8> {
        let mut out = header("#commit");
        let optional = 3 * u64::from(self.defaults) + u64::from(self.prev_data.is_some());
        write::map(&mut out, 8 + optional);
        write::text(&mut out, "ops");
        write::array(&mut out, self.ops.len() as u64);
        self.ops.iter().for_each(|op| op.write(&mut out));
        write::text(&mut out, "rev");
        write::text(&mut out, &self.rev);
        write::text(&mut out, "seq");
        write::unsigned(&mut out, seq);
        write::text(&mut out, "repo");
        write::text(&mut out, &self.repo);
        write::text(&mut out, "time");
        write::text(&mut out, &self.time);
        if self.defaults {
            write::text(&mut out, "blobs");
            write::array(&mut out, 0);
        }
        write::text(&mut out, "since");
        match &self.since {
            Some(since) => write::text(&mut out, since),
            None => write::null(&mut out),
        }
        write::text(&mut out, "blocks");
        write::byte_string(&mut out, &car_of(&self.root, &self.blocks));
        write::text(&mut out, "commit");
        write::link(&mut out, &self.commit);
        if self.defaults {
            write::text(&mut out, "rebase");
            write::boolean(&mut out, false);
            write::text(&mut out, "tooBig");
            write::boolean(&mut out, false);
        }
        if let Some(prev_data) = self.prev_data {
            write::text(&mut out, "prevData");
            write::link(&mut out, &prev_data);
        }
        out
    }
}

/// A #sync with this CAR.
pub(super) fn sync_frame(seq: u64, did: &str, rev: &str, car: &[u8]) -> Vec<u8> {
    let mut out = header("#sync");
    write::map(&mut out, 5);
    write::text(&mut out, "did");
    write::text(&mut out, did);
    write::text(&mut out, "rev");
    write::text(&mut out, rev);
    write::text(&mut out, "seq");
    write::unsigned(&mut out, seq);
    write::text(&mut out, "time");
    write::text(&mut out, TIME);
    write::text(&mut out, "blocks");
    write::byte_string(&mut out, car);
    out
}

pub(super) fn identity_frame(seq: u64, did: &str, handle: Option<&str>) -> Vec<u8> {
    let mut out = header("#identity");
    write::map(&mut out, 3 + u64::from(handle.is_some()));
    write::text(&mut out, "did");
    write::text(&mut out, did);
    write::text(&mut out, "seq");
    write::unsigned(&mut out, seq);
    write::text(&mut out, "time");
    write::text(&mut out, TIME);
    if let Some(handle) = handle {
        write::text(&mut out, "handle");
        write::text(&mut out, handle);
    }
    out
}

pub(super) fn account_frame(did: &str, active: bool, status: Option<&str>) -> Vec<u8> {
    frame::account_frame(did, TIME, active, status)
}

/// A record with a number in it.
pub(super) fn record(number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    write::map(&mut out, 1);
    write::text(&mut out, "n");
    write::unsigned(&mut out, number);
    out
}

#[derive(Clone)]
pub(super) struct Repo {
    pub(super) did: String,
    pub(super) key: SigningKey,
    tree: Tree,
    records: BTreeMap<String, Cid>,
    /// Of the last commit; zero for none.
    pub(super) rev: u64,
    data: Option<Cid>,
    commit: Option<(Cid, Vec<u8>)>,
    number: u64,
}

impl Repo {
    pub(super) fn new(number: u64, curve: Curve) -> Self {
        Self {
            did: did(number),
            key: SigningKey::from_seed(curve, &number.to_le_bytes()),
            tree: Tree::default(),
            records: BTreeMap::new(),
            rev: 0,
            data: None,
            commit: None,
            number: 0,
        }
    }

    /// The next commit, as an honest host would send it. Each change is a path, and whether there
    /// is to be a record.
    pub(super) fn apply(&mut self, changes: &[(&str, bool)]) -> CommitFrame {
        let mut ops = Vec::new();
        let mut records = Vec::new();
        for (path, present) in changes {
            let prev = self.records.get(*path).copied();
            let cid = present.then(|| {
                self.number += 1;
                let record = record(self.number);
                let cid = Cid::of_dag_cbor(&record);
                records.push((cid, record));
                cid
            });
            match cid {
                Some(cid) => {
                    self.tree.insert(path.as_bytes(), cid);
                    self.records.insert((*path).to_owned(), cid);
                }
                None => {
                    self.tree.remove(path.as_bytes());
                    self.records.remove(*path);
                }
            }
            let action = match (prev, cid) {
                (None, _) => "create",
                (Some(_), Some(_)) => "update",
                (Some(_), None) => "delete",
            };
            ops.push(OpFrame { action, path: (*path).to_owned(), cid, prev });
        }
        let keys: Vec<&[u8]> = changes.iter().map(|(path, _)| path.as_bytes()).collect();
        let mut blocks = self.tree.proof(&keys);
        blocks.extend(records);
        self.seal(ops, blocks)
    }

    fn seal(&mut self, ops: Vec<OpFrame>, nodes: Vec<(Cid, Vec<u8>)>) -> CommitFrame {
        let since = (self.rev > 0).then(|| Tid::from_u64(self.rev).to_string());
        self.rev = (self.rev + 1024).max(Tid::from_parts(1_700_000_000_000_000, 1).as_u64());
        let data = self.tree.root();
        let (cid, block) = self.sign(self.rev, &data);
        let prev_data = self.data.replace(data);
        self.commit = Some((cid, block.clone()));
        let mut blocks = vec![(cid, block)];
        blocks.extend(nodes);
        CommitFrame {
            repo: self.did.clone(),
            rev: Tid::from_u64(self.rev).to_string(),
            since,
            commit: cid,
            root: cid,
            prev_data,
            blocks,
            ops,
            time: TIME.to_owned(),
            defaults: true,
        }
    }

    /// A signed commit block of this account.
    pub(super) fn sign(&self, rev: u64, data: &Cid) -> (Cid, Vec<u8>) {
        signed_commit(&self.did, &self.key, &Tid::from_u64(rev).to_string(), data)
    }

    /// The state that the last commit left.
    pub(super) fn head(&self) -> RepoHead {
        let (data, (commit, _)) = (self.data.unwrap(), self.commit.as_ref().unwrap());
        RepoHead { rev: self.rev, data: data.digest(), commit: commit.digest() }
    }

    pub(super) fn post(&mut self) -> CommitFrame {
        let path = format!("app.bsky.feed.post/{}", self.number + 1);
        self.apply(&[(&path, true)])
    }

    /// The #sync for the last commit.
    pub(super) fn sync(&self, seq: u64) -> Vec<u8> {
        let (cid, block) = self.commit.clone().unwrap();
        let car = car_of(&cid, &[(cid, block)]);
        sync_frame(seq, &self.did, &Tid::from_u64(self.rev).to_string(), &car)
    }
}

pub(super) fn signed_commit(did: &str, key: &SigningKey, rev: &str, data: &Cid) -> (Cid, Vec<u8>) {
    let mut unsigned = Vec::new();
    commit::write(&mut unsigned, did, rev, data, None, None);
    let signature = key.sign(&unsigned);
    let mut block = Vec::new();
    commit::write(&mut block, did, rev, data, None, Some(&signature));
    (Cid::of_dag_cbor(&block), block)
}

pub(super) fn did(number: u64) -> String {
    let digits = b"abcdefghijklmnopqrstuvwxyz234567";
    let letter = |place: u32| char::from(digits[(number >> (5 * place) & 31) as usize]);
    let id: String = (0..12).map(letter).collect();
    format!("did:plc:{id}aaaaaaaaaaaa")
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Forwarded(Sent),
    Refused(RefusalReason),
    Parked,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) frame: Vec<u8>,
    pub(super) discontinuous: bool,
    pub(super) tree_waived: bool,
    pub(super) upstream: UpstreamStatus,
}

/// The stage with everything that it asks for.
pub(super) struct Net {
    pub(super) accounts: Accounts,
    pub(super) now: WallTime,
    /// What the directory says; DIDs not in it are not found.
    pub(super) directory: HashMap<String, IdentityAnswer>,
    pub(super) store: HashMap<String, AccountState>,
    /// What hosts answer when they are asked for an account's status.
    pub(super) host_says: HashMap<String, UpstreamStatus>,
    pub(super) strictness: Strictness,
    pub(super) rewound: bool,
    /// #account events that the relay made itself.
    pub(super) made: Vec<Sent>,
    /// Every question asked so far.
    pub(super) asked: Vec<AccountLookup>,
    pub(super) fates: Vec<Fate>,
    /// Order in which frames were forwarded.
    pub(super) order: Vec<usize>,
}

pub(super) const PDS: HostId = HostId(7);
pub(super) const OTHER_PDS: HostId = HostId(8);

impl Net {
    pub(super) fn new() -> Self {
        let patience = Duration::from_mins(1);
        Self::with(AccountsConfig { parked_wait: patience, ..AccountsConfig::new(ShardId(0)) })
    }

    pub(super) fn with(config: AccountsConfig) -> Self {
        Self {
            accounts: Accounts::new(config),
            now: WallTime::from_micros(TODAY * 1_000_000),
            directory: HashMap::new(),
            store: HashMap::new(),
            host_says: HashMap::new(),
            rewound: false,
            made: Vec::new(),
            strictness: Strictness::Strict,
            asked: Vec::new(),
            fates: Vec::new(),
            order: Vec::new(),
        }
    }

    /// Puts the account's document into the directory.
    pub(super) fn publish(&mut self, repo: &Repo, host: HostId, handle: &str) {
        let identity = Identity {
            key: Some(repo.key.verifying_key()),
            host: Some(host),
            handle: Some(handle.into()),
            fetched_at: 0,
        };
        self.directory.insert(repo.did.clone(), IdentityAnswer::Found(identity));
    }

    /// A repository whose document names [`PDS`].
    pub(super) fn repo(&mut self, number: u64) -> Repo {
        let curve = if number.is_multiple_of(4) { Curve::P256 } else { Curve::K256 };
        let repo = Repo::new(number, curve);
        self.publish(&repo, PDS, "alice.test");
        repo
    }

    /// Queues a frame; its number among the fates. A frame that cannot be skimmed is refused
    /// before this stage.
    pub(super) fn send(&mut self, host: HostId, frame: &[u8]) -> usize {
        let ticket = self.fates.len();
        let Ok(Skim::Event { kind, did, seq }) = frame::skim(frame) else {
            self.fates.push(Fate::Refused(RefusalReason::FrameMalformed));
            return ticket;
        };
        let start = did.as_ptr() as usize - frame.as_ptr() as usize;
        let kind = match kind {
            FrameKind::Commit => EventKind::Commit,
            FrameKind::Sync => EventKind::Sync,
            FrameKind::Identity => EventKind::Identity,
            FrameKind::Account => EventKind::Account,
        };
        let origin = FrameOrigin {
            host,
            home: ShardId(0),
            strictness: self.strictness,
            rewound: self.rewound,
        };
        let outline = FrameOutline {
            kind,
            host_seq: HostSeq(seq),
            did: start as u32..(start + did.len()) as u32,
        };
        let bytes = Bytes::copy_from_slice(frame);
        self.accounts.handle_frame(RawFrame::new(origin, ticket as u64, outline, bytes));
        self.fates.push(Fate::Parked);
        ticket
    }

    /// One turn, and no answer to anything.
    pub(super) fn turn(&mut self) {
        self.accounts.run_turn(self.now);
        self.collect();
    }

    pub(super) fn collect(&mut self) {
        while let Some(verified) = self.accounts.poll_verified() {
            if verified.host() == HostId::RELAY {
                self.made.push(sent(&verified));
                continue;
            }
            let ticket = verified.ticket() as usize;
            assert_eq!(self.fates[ticket], Fate::Parked, "a second end of frame {ticket}");
            self.fates[ticket] = Fate::Forwarded(sent(&verified));
            self.order.push(ticket);
        }
        while let Some(finished) = self.accounts.poll_finished() {
            let Outcome::Refused(reason) = finished.outcome else { panic!("not made here") };
            let ticket = finished.ticket as usize;
            assert_eq!(self.fates[ticket], Fate::Parked, "a second end of frame {ticket}");
            self.fates[ticket] = Fate::Refused(reason);
        }
    }

    pub(super) fn take_lookups(&mut self) -> Vec<AccountLookup> {
        let lookups: Vec<_> = std::iter::from_fn(|| self.accounts.poll_lookup()).collect();
        self.asked.extend(lookups.iter().cloned());
        lookups
    }

    /// What control would answer; an account is made if the document names the sender.
    pub(super) fn answer_to(&mut self, lookup: &AccountLookup) -> AccountAnswer {
        let did = lookup.did.to_string();
        let fetched_at = self.now.micros() / 1_000_000;
        let identity = match self.directory.get(&did) {
            Some(IdentityAnswer::Found(identity)) => {
                IdentityAnswer::Found(Identity { fetched_at, ..identity.clone() })
            }
            Some(other) => other.clone(),
            None => IdentityAnswer::NotFound,
        };
        let names_sender = matches!(&identity, IdentityAnswer::Found(identity)
            if identity.host == Some(lookup.sender));
        if names_sender {
            let id = AccountId(self.store.len() as u64 + 1);
            self.store.entry(did.clone()).or_insert(AccountState {
                id,
                host: lookup.sender,
                upstream: UpstreamStatus::ACTIVE,
                local: LocalStatus::Active,
                announced: None,
                head: None,
            });
        }
        let state = self.store.get(&did).copied().filter(|_| lookup.state_wanted);
        let asked_host = lookup.why == LookupWhy::Inactive;
        let host_status = self.host_says.get(&did).copied().filter(|_| asked_host);
        AccountAnswer { did: lookup.did.clone(), state, identity, fresh: true, host_status }
    }

    /// Turns and answers until nothing moves.
    pub(super) fn settle(&mut self) {
        self.turn();
        loop {
            let lookups = self.take_lookups();
            if lookups.is_empty() {
                return;
            }
            for lookup in lookups {
                let answer = self.answer_to(&lookup);
                self.accounts.handle_answer(answer, self.now);
            }
            self.turn();
        }
    }

    /// Sends one frame and lets everything settle.
    pub(super) fn run(&mut self, host: HostId, frame: &[u8]) -> Fate {
        let ticket = self.send(host, frame);
        self.settle();
        self.fates[ticket].clone()
    }

    /// Lets time pass, and everything that happens by itself happen.
    pub(super) fn wait_seconds(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.pass_seconds(1);
            self.accounts.handle_timeout(self.now);
            self.settle();
        }
    }

    pub(super) fn pass_seconds(&mut self, seconds: u64) {
        self.now = WallTime::from_micros(self.now.micros() + seconds * 1_000_000);
    }

    /// Changes the stored state before the account is first seen.
    pub(super) fn preset(&mut self, repo: &Repo, change: impl FnOnce(&mut AccountState)) {
        let mut state = AccountState {
            id: AccountId(self.store.len() as u64 + 1),
            host: PDS,
            upstream: UpstreamStatus::ACTIVE,
            local: LocalStatus::Active,
            announced: None,
            head: None,
        };
        change(&mut state);
        self.store.insert(repo.did.clone(), state);
    }
}

fn sent(verified: &Verified) -> Sent {
    let event = frame::parse(verified.frame()).unwrap();
    assert_eq!(event.seq_span, verified.seq_span(), "the place of the seq");
    assert_eq!(
        verified.head().is_some(),
        matches!(event.body, Body::Commit(_) | Body::Sync(_)),
        "commits and #sync move the head"
    );
    Sent {
        frame: verified.frame().to_vec(),
        discontinuous: verified.has_remark(ports::Remark::Discontinuous),
        tree_waived: verified.has_remark(ports::Remark::TreeWaived),
        upstream: verified.upstream(),
    }
}

impl Fate {
    #[track_caller]
    pub(super) fn sent(&self) -> &Sent {
        match self {
            Self::Forwarded(sent) => sent,
            other => panic!("not forwarded: {other:?}"),
        }
    }

    #[track_caller]
    pub(super) fn refused(&self) -> RefusalReason {
        match self {
            Self::Refused(reason) => *reason,
            other => panic!("not refused: {other:?}"),
        }
    }
}
