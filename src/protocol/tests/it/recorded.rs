//! Frames of real programs and of the reference implementation: all of them are read in full, and
//! each commit's operations lead back to its `prevData`.

use protocol::{
    car::BlockTable,
    cbor, commit,
    frame::{self, Body, CommitEvent, FrameKind, Skim},
    mst::{self, Scratch},
};

use crate::data;

/// Checks all that can be known of a frame without the account. Gives the frame's kind.
fn check(frame: &[u8], table: &mut BlockTable, scratch: &mut Scratch) -> FrameKind {
    let event = frame::parse(frame).unwrap();
    let kind = event.body.kind();
    assert_eq!(frame::skim(frame), Ok(Skim::Event { kind, did: event.did, seq: event.seq }));
    let mut seq = Vec::new();
    frame::write_seq(event.seq, &mut seq);
    assert_eq!(seq, frame[event.seq_span.clone()]);
    match &event.body {
        Body::Commit(body) => {
            assert!(!body.lacks_defaults);
            check_commit(event.did, body, table, scratch);
        }
        Body::Sync(body) => {
            let map = table.load(body.blocks).unwrap();
            let commit = commit::parse(map.get(&map.root()).unwrap()).unwrap();
            assert_eq!(commit.did, event.did);
        }
        Body::Identity(_) | Body::Account(_) => {}
    }
    kind
}

fn check_commit(did: &str, body: &CommitEvent<'_>, table: &mut BlockTable, scratch: &mut Scratch) {
    let map = table.load(body.blocks).unwrap();
    assert_eq!(map.root(), body.commit);
    let commit = commit::parse(map.get(&body.commit).unwrap()).unwrap();
    assert_eq!((commit.did, commit.rev), (did, body.rev));
    for op in &body.ops {
        if let Some(cid) = &op.cid {
            cbor::check_record(map.get(cid).unwrap()).unwrap();
        }
    }
    if let Some(prev_data) = body.prev_data {
        assert_eq!(mst::invert(commit.data, body.ops, &map, scratch), Ok(prev_data));
    }
}

#[test]
fn captured_frames() {
    let (mut table, mut scratch) = (BlockTable::default(), Scratch::default());
    for (name, count) in [("pdsA", 24), ("pdsB", 5), ("arroba-frames", 9)] {
        let frames = data::hex_lines(&format!("captured/{name}.jsonl"));
        assert_eq!(frames.len(), count, "{name}");
        for frame in frames {
            check(&frame, &mut table, &mut scratch);
        }
    }
    let error = &data::hex_lines("captured/future-cursor-error.jsonl")[0];
    let message = Some("Cursor in the future.");
    assert_eq!(frame::skim(error), Ok(Skim::Error { error: "FutureCursor", message }));
    assert_eq!(*error, frame::error_frame("FutureCursor", "Cursor in the future."));
}

/// A #sync after a migration: its own commit is of another rev than it says.
#[test]
fn captured_sync_that_does_not_match_its_commit() {
    let mut table = BlockTable::default();
    let mut mismatches = 0;
    for frame in data::hex_lines("captured/pdsB.jsonl") {
        if let Body::Sync(body) = frame::parse(&frame).unwrap().body {
            let map = table.load(body.blocks).unwrap();
            let commit = commit::parse(map.get(&map.root()).unwrap()).unwrap();
            mismatches += usize::from(commit.rev != body.rev);
        }
    }
    assert_eq!(mismatches, 1);
}

#[test]
fn corpus_frames() {
    let (mut table, mut scratch) = (BlockTable::default(), Scratch::default());
    let mut commits = 0;
    let mut frames = 0;
    for host in 0..3 {
        for frame in data::corpus_frames(host) {
            frames += 1;
            commits += usize::from(check(&frame, &mut table, &mut scratch) == FrameKind::Commit);
        }
    }
    assert_eq!((frames, commits), (2081, 2000));
}
