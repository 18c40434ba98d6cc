//! #commit and #sync: what is forwarded, and each reason for which one is refused.

use ecdsa::{Curve, sign::SigningKey};
use ports::{LocalStatus, RefusalReason as Reason, RepoHead, Strictness, UpstreamStatus};
use protocol::{Cid, Codec, frame, mst, syntax::Tid};

use super::kit::*;

type Spoil = fn(&mut CommitFrame);
type SpoilSigned = fn(&mut CommitFrame, &Repo);

/// An account with one commit behind it.
fn known_account() -> (Net, Repo) {
    let mut net = Net::new();
    let mut repo = net.repo(1);
    let first = repo.post().encode(1);
    net.run(PDS, &first).sent();
    (net, repo)
}

/// Spoils the next commit of a known account and tells why it is refused. The good one must still
/// pass afterwards: nothing of a refused commit stays.
#[track_caller]
fn refuse_commit(spoil: impl FnOnce(&mut CommitFrame, &Repo)) -> Reason {
    let (mut net, mut repo) = known_account();
    let good = repo.apply(&[
        ("app.bsky.feed.post/aaa", true),
        ("app.bsky.feed.post/1", false),
        ("app.bsky.actor.profile/self", true),
    ]);
    let mut bad = good.clone();
    spoil(&mut bad, &repo);
    let reason = net.run(PDS, &bad.encode(2)).refused();
    let sent = net.run(PDS, &good.encode(3));
    assert!(!sent.sent().discontinuous, "a refused commit has moved the state");
    reason
}

/// Puts another commit object in front: signed, but not what the event says.
fn reseal(bad: &mut CommitFrame, did: &str, key: &SigningKey, rev: &str, data: &Cid) {
    let (cid, block) = signed_commit(did, key, rev, data);
    bad.blocks[0] = (cid, block);
    bad.root = cid;
    bad.commit = cid;
}

fn data_of(bad: &CommitFrame) -> Cid {
    protocol::commit::parse(&bad.blocks[0].1).unwrap().data
}

#[test]
fn honest_commits_pass_unchanged() {
    for number in [1, 4] {
        let mut net = Net::new();
        let mut repo = net.repo(number);
        let mut frames = vec![repo.apply(&[]).encode(1)];
        for seq in 2..30 {
            frames.push(repo.post().encode(seq));
        }
        frames.push(repo.apply(&[("app.bsky.feed.post/3", false)]).encode(31));
        frames.push(repo.apply(&[("app.bsky.feed.post/4", true)]).encode(32));
        frames.push(repo.apply(&[]).encode(33));
        for frame in &frames {
            let fate = net.run(PDS, frame);
            assert_eq!(fate.sent().frame, *frame);
            assert!(!fate.sent().discontinuous && !fate.sent().tree_waived);
        }
        assert_eq!(net.asked.len(), 1, "one look-up for an account");
    }
}

#[test]
fn a_first_commit_may_hold_records() {
    let mut net = Net::new();
    let mut repo = net.repo(1);
    let first = repo.apply(&[("app.bsky.feed.post/a", true), ("app.bsky.feed.post/b", true)]);
    assert!(first.prev_data.is_none() && first.since.is_none());
    assert!(!net.run(PDS, &first.encode(1)).sent().tree_waived);
}

#[test]
fn an_account_first_seen_in_the_middle_is_checked_against_its_own_prev_data() {
    let mut net = Net::new();
    let mut repo = net.repo(1);
    repo.post();
    let middle = repo.post();
    assert!(middle.prev_data.is_some());
    assert!(!net.run(PDS, &middle.encode(1)).sent().discontinuous);

    let mut net = Net::new();
    let mut repo = net.repo(1);
    repo.post();
    let mut wrong = repo.post();
    wrong.prev_data = Some(mst::EMPTY_ROOT);
    assert_eq!(net.run(PDS, &wrong.encode(1)).refused(), Reason::InversionMismatch);
}

#[test]
fn a_commit_without_prev_data() {
    // Known account: strict refuses, lenient passes and says so.
    let (mut net, mut repo) = known_account();
    let mut commit = repo.post();
    commit.prev_data = None;
    assert_eq!(net.run(PDS, &commit.encode(2)).refused(), Reason::PrevDataMissing);
    net.strictness = Strictness::Lenient;
    assert!(net.run(PDS, &commit.encode(3)).sent().tree_waived);

    // First sight: only with `since` null, and then it must invert to the empty tree.
    let first_sight = |since: Option<&str>, strictness| {
        let mut net = Net::new();
        net.strictness = strictness;
        let mut repo = net.repo(1);
        repo.post();
        let mut commit = repo.post();
        commit.prev_data = None;
        commit.since = since.map(str::to_owned);
        net.run(PDS, &commit.encode(1))
    };
    let since = Some("3llpx3aem5h2j");
    assert_eq!(first_sight(since, Strictness::Strict).refused(), Reason::PrevDataMissing);
    assert_eq!(first_sight(None, Strictness::Strict).refused(), Reason::InversionMismatch);
    assert!(first_sight(since, Strictness::Lenient).sent().tree_waived);
    assert!(first_sight(None, Strictness::Lenient).sent().tree_waived);
}

#[test]
fn old_hosts_leave_out_prev_of_operations() {
    let (mut net, mut repo) = known_account();
    let mut delete = repo.apply(&[("app.bsky.feed.post/1", false)]);
    delete.ops[0].prev = None;
    assert_eq!(net.run(PDS, &delete.encode(2)).refused(), Reason::OpInvalid);
    net.strictness = Strictness::Lenient;
    assert!(net.run(PDS, &delete.encode(3)).sent().tree_waived);
}

#[test]
fn a_discontinuous_commit_passes_and_moves_the_state() {
    let (mut net, mut repo) = known_account();
    repo.post();
    let gap = repo.post();
    assert!(net.run(PDS, &gap.encode(3)).sent().discontinuous);
    let next = repo.post();
    assert!(!net.run(PDS, &next.encode(4)).sent().discontinuous);
    let tally = net.accounts.take_tally();
    assert_eq!(tally.remarks[ports::Remark::Discontinuous.index()], 1);
}

#[test]
fn since_alone_is_no_ground() {
    let (mut net, mut repo) = known_account();
    let mut commit = repo.post();
    commit.since = Some("3llpx3aem5h2j".into());
    assert!(!net.run(PDS, &commit.encode(2)).sent().discontinuous);
    let mut commit = repo.post();
    commit.since = None;
    assert!(!net.run(PDS, &commit.encode(3)).sent().discontinuous);
}

#[test]
fn missing_default_fields_are_filled_in() {
    let (mut net, mut repo) = known_account();
    let mut commit = repo.post();
    commit.defaults = false;
    let lacking = commit.encode(2);
    let fate = net.run(PDS, &lacking);
    assert_eq!(fate.sent().frame, frame::with_defaults(&lacking).unwrap());
    commit.defaults = true;
    assert_eq!(fate.sent().frame, commit.encode(2));
    let tally = net.accounts.take_tally();
    assert_eq!(tally.remarks[ports::Remark::Completed.index()], 1);
}

#[test]
fn syntax_of_the_envelope() {
    let cases: [(&str, Spoil, Reason); 8] = [
        ("time", |bad| bad.time = "yesterday".into(), Reason::TimeSyntax),
        ("rev", |bad| bad.rev = "abc".into(), Reason::RevSyntax),
        ("did", |bad| bad.repo = "did:PLC:abc".into(), Reason::DidSyntax),
        ("method", |bad| bad.repo = "did:key:abc".into(), Reason::IdentityNotFound),
        ("path", |bad| bad.ops[0].path = "app.bsky.feed.post".into(), Reason::OpInvalid),
        ("rkey", |bad| bad.ops[0].path = "app.bsky.feed.post/..".into(), Reason::OpInvalid),
        ("action", |bad| bad.ops[0].action = "replace", Reason::OpInvalid),
        ("twice", |bad| bad.ops.push(bad.ops[0].clone()), Reason::OpInvalid),
    ];
    for (name, spoil, expected) in cases {
        assert_eq!(refuse_commit(|bad, _| spoil(bad)), expected, "{name}");
    }
}

#[test]
fn operations_must_have_the_cids_that_go_with_their_action() {
    fn any() -> Cid {
        Cid::of_dag_cbor(b"x")
    }
    let cases: [(&str, Spoil); 4] = [
        ("create with prev", |bad| bad.ops[0].prev = Some(any())),
        ("create without cid", |bad| bad.ops[0].cid = None),
        ("delete with cid", |bad| {
            let index = bad.ops.iter().position(|op| op.action == "delete").unwrap();
            bad.ops[index].cid = Some(any());
        }),
        ("delete without prev", |bad| {
            let index = bad.ops.iter().position(|op| op.action == "delete").unwrap();
            bad.ops[index].prev = None;
        }),
    ];
    for (name, spoil) in cases {
        assert_eq!(refuse_commit(|bad, _| spoil(bad)), Reason::OpInvalid, "{name}");
    }
}

#[test]
fn limits_of_a_commit() {
    let blocks = refuse_commit(|bad, _| {
        let junk = vec![0; frame::COMMIT_BLOCKS_BYTES_MAX];
        bad.blocks.push((Cid::of_dag_cbor(&junk), junk));
    });
    assert_eq!(blocks, Reason::BlocksTooLarge);
    let ops = refuse_commit(|bad, _| {
        let op = bad.ops[0].clone();
        bad.ops = (0..=frame::OPS_MAX)
            .map(|number| OpFrame { path: format!("app.bsky.feed.post/{number}"), ..op.clone() })
            .collect();
    });
    assert_eq!(ops, Reason::OpsTooMany);
    let frame = refuse_commit(|bad, _| {
        let junk = vec![0; frame::FRAME_BYTES_MAX];
        bad.blocks.push((Cid::of_dag_cbor(&junk), junk));
    });
    // Such a frame is refused before it gets to this stage, as it cannot be skimmed.
    assert_eq!(frame, Reason::FrameMalformed);
}

#[test]
fn records_must_be_there_and_be_cbor_of_limited_size() {
    let with_record = |record: Vec<u8>| {
        refuse_commit(|bad, _| {
            let cid = Cid::of_dag_cbor(&record);
            bad.ops[0].cid = Some(cid);
            bad.blocks.push((cid, record));
        })
    };
    let mut large = vec![0x5a];
    large.extend_from_slice(&(frame::RECORD_BYTES_MAX as u32).to_be_bytes());
    large.resize(frame::RECORD_BYTES_MAX + 5, 0);
    assert_eq!(with_record(large), Reason::RecordTooLarge);
    assert_eq!(with_record(vec![0xff]), Reason::RecordMalformed);
    assert_eq!(with_record(vec![0xa1; 5_000]), Reason::RecordMalformed);
    let missing = refuse_commit(|bad, _| {
        let cid = bad.ops[0].cid.unwrap();
        bad.blocks.retain(|(block, _)| *block != cid);
    });
    assert_eq!(missing, Reason::RecordMissing);
}

#[test]
fn the_car_and_its_blocks() {
    assert_eq!(refuse_commit(|bad, _| bad.blocks[1].1[3] ^= 1), Reason::BlockHash);
    assert_eq!(refuse_commit(|bad, _| bad.blocks.last_mut().unwrap().1[2] ^= 1), Reason::BlockHash);
    assert_eq!(refuse_commit(|bad, _| drop(bad.blocks.remove(0))), Reason::CommitMissing);
    let raw_root = refuse_commit(|bad, _| {
        bad.root = Cid::from_digest(Codec::Raw, bad.root.digest());
        bad.commit = bad.root;
    });
    assert_eq!(raw_root, Reason::CarMalformed);
    let (mut net, mut repo) = known_account();
    let frame = repo.post().encode(2);
    // The length of the CAR header is the first byte of `blocks`.
    let at = frame.windows(7).position(|bytes| bytes == b"\xa2eroots").unwrap() - 1;
    let mut bad = frame.clone();
    bad[at] = 0xff;
    assert_eq!(net.run(PDS, &bad).refused(), Reason::CarMalformed);
    net.run(PDS, &frame).sent();
}

#[test]
fn tree_nodes_must_be_there_and_canonical() {
    let missing = refuse_commit(|bad, _| {
        let data = data_of(bad);
        bad.blocks.retain(|(cid, _)| *cid != data);
    });
    assert_eq!(missing, Reason::TreeMalformed);
    let malformed = refuse_commit(|bad, repo| {
        let node = record(1);
        let data = Cid::of_dag_cbor(&node);
        let rev = bad.rev.clone();
        reseal(bad, &repo.did, &repo.key, &rev, &data);
        bad.blocks.push((data, node));
    });
    assert_eq!(malformed, Reason::TreeMalformed);
    let other_prev = refuse_commit(|bad, _| bad.prev_data = Some(mst::EMPTY_ROOT));
    assert_eq!(other_prev, Reason::InversionMismatch);
    let left_out = refuse_commit(|bad, _| drop(bad.ops.pop()));
    assert_eq!(left_out, Reason::InversionMismatch);
}

#[test]
fn the_commit_object_and_what_the_event_says_of_it() {
    let cases: [(&str, SpoilSigned, Reason); 6] = [
        (
            "not a commit",
            |bad, _| {
                let block = record(1);
                bad.root = Cid::of_dag_cbor(&block);
                bad.commit = bad.root;
                bad.blocks[0] = (bad.root, block);
            },
            Reason::CommitMalformed,
        ),
        (
            "large commit",
            |bad, _| {
                let block = vec![0; 10_001];
                bad.root = Cid::of_dag_cbor(&block);
                bad.commit = bad.root;
                bad.blocks[0] = (bad.root, block);
            },
            Reason::CommitMalformed,
        ),
        ("commit CID", |bad, _| bad.commit = Cid::of_dag_cbor(b"x"), Reason::CommitMismatch),
        (
            "rev",
            |bad, repo| bad.rev = Tid::from_u64(repo.rev + 1).to_string(),
            Reason::CommitMismatch,
        ),
        (
            "did",
            |bad, repo| {
                let (rev, data) = (bad.rev.clone(), data_of(bad));
                reseal(bad, &did(99), &repo.key, &rev, &data);
            },
            Reason::CommitMismatch,
        ),
        (
            "signed rev",
            |bad, repo| {
                let data = data_of(bad);
                reseal(bad, &repo.did, &repo.key, "3zzzzzzzzzzzz", &data);
            },
            Reason::CommitMismatch,
        ),
    ];
    for (name, spoil, expected) in cases {
        assert_eq!(refuse_commit(spoil), expected, "{name}");
    }
}

#[test]
fn a_signature_of_another_key_is_refused_after_one_fresh_look() {
    let (mut net, mut repo) = known_account();
    let good = repo.post();
    let mut bad = good.clone();
    let stranger = SigningKey::from_seed(Curve::K256, b"stranger");
    let (rev, data) = (bad.rev.clone(), data_of(&bad));
    reseal(&mut bad, &repo.did, &stranger, &rev, &data);
    let asked = net.asked.len();
    assert_eq!(net.run(PDS, &bad.encode(2)).refused(), Reason::SignatureInvalid);
    assert_eq!(net.asked.len(), asked + 1);
    assert!(net.asked.last().unwrap().fresh);
    // After a few the next ones are refused without asking.
    for seq in 3..20 {
        assert_eq!(net.run(PDS, &bad.encode(seq)).refused(), Reason::SignatureInvalid);
    }
    assert_eq!(net.asked.len(), asked + 4);
    net.pass_seconds(31);
    assert_eq!(net.run(PDS, &bad.encode(4)).refused(), Reason::SignatureInvalid);
    assert_eq!(net.asked.len(), asked + 5);
    assert!(!net.run(PDS, &good.encode(5)).sent().discontinuous);
}

#[test]
fn revs_only_rise() {
    let (mut net, mut repo) = known_account();
    let second = repo.post().encode(2);
    let third = repo.post().encode(3);
    net.run(PDS, &third).sent();
    assert_eq!(net.run(PDS, &second).refused(), Reason::RevStale);
    assert_eq!(net.run(PDS, &third).refused(), Reason::RevStale);
    assert_eq!(net.run(PDS, &repo.sync(4)).refused(), Reason::RevStale);
    // Also within one turn.
    let fourth = repo.post().encode(5);
    let tickets = [net.send(PDS, &fourth), net.send(PDS, &fourth)];
    net.settle();
    net.fates[tickets[0]].sent();
    assert_eq!(net.fates[tickets[1]].refused(), Reason::RevStale);
}

#[test]
fn a_rev_may_be_five_minutes_ahead() {
    let (mut net, mut repo) = known_account();
    for (ahead, passes) in [(299, true), (301, false)] {
        let mut commit = repo.post();
        let data = data_of(&commit);
        repo.rev = Tid::from_parts((TODAY + ahead) * 1_000_000, 0).as_u64();
        commit.rev = Tid::from_u64(repo.rev).to_string();
        let rev = commit.rev.clone();
        reseal(&mut commit, &repo.did.clone(), &repo.key.clone(), &rev, &data);
        let fate = net.run(PDS, &commit.encode(ahead));
        if passes {
            fate.sent();
        } else {
            assert_eq!(fate.refused(), Reason::RevFuture);
        }
    }
}

#[test]
fn a_sync_moves_the_state() {
    let (mut net, mut repo) = known_account();
    repo.post();
    repo.post();
    let sync = repo.sync(2);
    assert_eq!(net.run(PDS, &sync).sent().frame, sync);
    assert!(!net.run(PDS, &repo.post().encode(3)).sent().discontinuous);
}

#[test]
fn a_sync_is_checked_like_a_commit() {
    let (mut net, mut repo) = known_account();
    repo.post();
    let data = Cid::of_dag_cbor(b"data");
    let rev = Tid::from_u64(repo.rev).to_string();
    let key = SigningKey::from_seed(Curve::K256, b"stranger");
    let (cid, block) = signed_commit(&repo.did, &repo.key, &rev, &data);
    let good = (cid, block.clone());
    let (bad_cid, bad_block) = signed_commit(&repo.did, &key, &rev, &data);
    let forged = sync_frame(2, &repo.did, &rev, &car_of(&bad_cid, &[(bad_cid, bad_block)]));
    let later = Tid::from_u64(repo.rev + 5).to_string();
    let other_rev_signed =
        sync_frame(2, &repo.did, &later, &car_of(&cid, std::slice::from_ref(&good)));
    let no_commit = sync_frame(2, &repo.did, &rev, &car_of(&cid, &[]));
    let junk = vec![0; 10_000];
    let large = car_of(&cid, &[good.clone(), (Cid::of_dag_cbor(&junk), junk)]);
    let large = sync_frame(2, &repo.did, &rev, &large);
    let broken = sync_frame(2, &repo.did, &rev, &[1, 2, 3]);
    let (future_cid, future_block) = signed_commit(&repo.did, &repo.key, "jzzzzzzzzzzzz", &data);
    let future = car_of(&future_cid, &[(future_cid, future_block)]);
    let future = sync_frame(2, &repo.did, "jzzzzzzzzzzzz", &future);
    for (frame, reason) in [
        (forged, Reason::SignatureInvalid),
        (other_rev_signed, Reason::CommitMismatch),
        (no_commit, Reason::CommitMissing),
        (large, Reason::BlocksTooLarge),
        (broken, Reason::CarMalformed),
        (future, Reason::RevFuture),
    ] {
        assert_eq!(net.run(PDS, &frame).refused(), reason);
    }
    let good = sync_frame(3, &repo.did, &rev, &car_of(&cid, &[good]));
    net.run(PDS, &good).sent();
}

#[test]
fn nothing_of_an_inactive_account_passes() {
    let inactive = UpstreamStatus { active: false, word: ports::StatusWord::Deactivated };
    let cases: [(UpstreamStatus, LocalStatus, Reason); 4] = [
        (inactive, LocalStatus::Active, Reason::AccountInactive),
        (UpstreamStatus::ACTIVE, LocalStatus::Takendown, Reason::AccountTakendown),
        (UpstreamStatus::ACTIVE, LocalStatus::Throttled, Reason::AccountThrottled),
        (inactive, LocalStatus::Takendown, Reason::AccountTakendown),
    ];
    for (upstream, local, reason) in cases {
        let mut net = Net::new();
        let mut repo = net.repo(1);
        net.preset(&repo, |state| {
            state.upstream = upstream;
            state.local = local;
        });
        assert_eq!(net.run(PDS, &repo.post().encode(1)).refused(), reason);
        assert_eq!(net.run(PDS, &repo.sync(2)).refused(), reason);
        net.run(PDS, &identity_frame(3, &repo.did, None)).sent();
    }
}

#[test]
fn the_stored_head_counts() {
    let mut net = Net::new();
    let mut repo = net.repo(1);
    let first = repo.post();
    let head =
        RepoHead { rev: repo.rev, data: data_of(&first).digest(), commit: first.commit.digest() };
    net.preset(&repo, |state| state.head = Some(head));
    assert_eq!(net.run(PDS, &first.encode(1)).refused(), Reason::RevStale);
    assert!(!net.run(PDS, &repo.post().encode(2)).sent().discontinuous);
}
