//! #identity and #account, and the look-ups that frames wait for.

use std::time::Duration;

use ecdsa::Curve;
use ports::{
    Identity, IdentityAnswer, LocalStatus, RefusalReason as Reason, ShardId, StatusWord,
    UpstreamStatus,
};
use protocol::frame;

use super::{super::AccountsConfig, kit::*};

fn known_account() -> (Net, Repo) {
    let mut net = Net::new();
    let mut repo = net.repo(1);
    net.run(PDS, &repo.post().encode(1)).sent();
    (net, repo)
}

#[test]
fn frames_wait_for_the_identity_in_order_with_one_question() {
    let mut net = Net::new();
    let mut repo = net.repo(1);
    let frames: Vec<Vec<u8>> = (1..6).map(|seq| repo.post().encode(seq)).collect();
    for frame in &frames[..3] {
        net.send(PDS, frame);
        net.turn();
    }
    let lookups = net.take_lookups();
    assert_eq!(lookups.len(), 1);
    assert_eq!(*lookups[0].did, *repo.did);
    assert!(lookups[0].state_wanted && !lookups[0].fresh && lookups[0].sender == PDS);
    assert_eq!(net.accounts.take_tally().parked, 3);
    // Frames that come in between answer and turn go behind those that waited.
    net.send(PDS, &frames[3]);
    let answer = net.answer_to(&lookups[0]);
    net.accounts.handle_answer(answer, net.now);
    net.send(PDS, &frames[4]);
    net.turn();
    assert_eq!(net.order, [0, 1, 2, 3, 4]);
    let tally = net.accounts.take_tally();
    assert_eq!((tally.parked, tally.accounts, tally.forwarded[0]), (0, 1, 5));
}

#[test]
fn other_accounts_do_not_wait() {
    let (mut net, mut repo) = known_account();
    let mut unknown = net.repo(2);
    let waits = net.send(PDS, &unknown.post().encode(2));
    let passes = net.send(PDS, &repo.post().encode(3));
    net.turn();
    assert_eq!(net.fates[waits], Fate::Parked);
    net.fates[passes].sent();
}

#[test]
fn an_unknown_did_is_refused_and_not_asked_for_again_at_once() {
    let mut net = Net::new();
    let mut repo = Repo::new(5, Curve::K256);
    let frame = repo.post().encode(1);
    assert_eq!(net.run(PDS, &frame).refused(), Reason::IdentityNotFound);
    assert_eq!(net.run(PDS, &frame).refused(), Reason::IdentityNotFound);
    assert_eq!(net.asked.len(), 1);
    net.publish(&repo, PDS, "alice.test");
    net.pass_seconds(60);
    net.run(PDS, &frame).sent();
}

#[test]
fn a_new_account_must_come_from_the_host_that_its_document_names() {
    let mut net = Net::new();
    let mut repo = net.repo(1);
    let frame = repo.post().encode(1);
    assert_eq!(net.run(OTHER_PDS, &frame).refused(), Reason::HostMismatch);
    assert_eq!(net.run(OTHER_PDS, &frame).refused(), Reason::HostMismatch);
    assert_eq!(net.asked.len(), 1);
    net.run(PDS, &frame).sent();
}

#[test]
fn the_right_host_is_heard_though_a_wrong_one_spoke_first() {
    let mut net = Net::new();
    let mut repo = net.repo(1);
    let first = repo.post().encode(1);
    let wrong = net.send(OTHER_PDS, &first);
    let right = net.send(PDS, &first);
    let wrong_again = net.send(OTHER_PDS, &repo.post().encode(2));
    net.settle();
    assert_eq!(net.fates[wrong].refused(), Reason::HostMismatch);
    net.fates[right].sent();
    assert_eq!(net.fates[wrong_again].refused(), Reason::HostMismatch);
}

#[test]
fn a_cached_answer_that_does_not_fit_is_asked_for_freshly() {
    let mut net = Net::new();
    let mut repo = net.repo(1);
    let ticket = net.send(PDS, &repo.post().encode(1));
    net.turn();
    let lookup = net.take_lookups().remove(0);
    let mut answer = net.answer_to(&lookup);
    answer.fresh = false;
    answer.state = None;
    answer.identity = IdentityAnswer::NotFound;
    net.accounts.handle_answer(answer, net.now);
    net.settle();
    assert!(net.asked.last().unwrap().fresh && net.asked.last().unwrap().state_wanted);
    net.fates[ticket].sent();
}

#[test]
fn without_an_answer_of_the_directory_frames_are_refused_when_their_time_is_over() {
    let mut net = Net::new();
    let mut repo = net.repo(1);
    net.directory.insert(repo.did.clone(), IdentityAnswer::Unavailable);
    let first = net.send(PDS, &repo.post().encode(1));
    net.settle();
    net.wait_seconds(30);
    let second = net.send(PDS, &repo.post().encode(2));
    net.settle();
    net.wait_seconds(29);
    assert_eq!(net.fates[first], Fate::Parked);
    net.wait_seconds(1);
    assert_eq!(net.fates[first].refused(), Reason::IdentityUnavailable);
    assert_eq!(net.fates[second], Fate::Parked);
    net.wait_seconds(30);
    assert_eq!(net.fates[second].refused(), Reason::IdentityUnavailable);
    assert_eq!(net.accounts.next_timeout(), None);
    assert_eq!(net.take_lookups().len(), 0);
}

#[test]
fn frames_wait_as_long_as_it_takes_to_know_what_is_stored() {
    let mut net = Net::new();
    let mut repo = net.repo(1);
    let tickets = [1, 2].map(|seq| net.send(PDS, &repo.post().encode(seq)));
    net.turn();
    let lookups = net.take_lookups();
    assert!(lookups.len() == 1 && lookups[0].state_wanted);
    net.pass_seconds(100_000);
    assert_eq!(net.accounts.next_timeout(), None);
    net.accounts.handle_timeout(net.now);
    net.settle();
    assert!(tickets.iter().all(|ticket| net.fates[*ticket] == Fate::Parked));
    net.pass_seconds(1);
    let third = net.send(PDS, &repo.post().encode(3));
    let answer = net.answer_to(&lookups[0]);
    net.accounts.handle_answer(answer, net.now);
    net.settle();
    for ticket in tickets.into_iter().chain([third]) {
        net.fates[ticket].sent();
    }
}

#[test]
fn an_unavailable_directory_is_asked_again_with_growing_pauses() {
    let mut net = Net::new();
    let mut repo = net.repo(1);
    let known = net.directory.insert(repo.did.clone(), IdentityAnswer::Unavailable).unwrap();
    let ticket = net.send(PDS, &repo.post().encode(1));
    net.settle();
    let start = net.now.micros();
    let mut tries = Vec::new();
    for _ in 0..4 {
        net.now = net.accounts.next_timeout().unwrap();
        tries.push((net.now.micros() - start) / 1_000_000);
        net.accounts.handle_timeout(net.now);
        net.settle();
    }
    assert_eq!(tries, [1, 3, 7, 15]);
    assert_eq!(net.fates[ticket], Fate::Parked);
    net.directory.insert(repo.did.clone(), known);
    net.now = net.accounts.next_timeout().unwrap();
    net.accounts.handle_timeout(net.now);
    net.settle();
    net.fates[ticket].sent();
}

#[test]
fn a_known_key_will_do_while_the_directory_is_away() {
    let (mut net, mut repo) = known_account();
    net.directory.insert(repo.did.clone(), IdentityAnswer::Unavailable);
    net.pass_seconds(25 * 3600);
    net.run(PDS, &repo.post().encode(2)).sent();
    let identity = identity_frame(3, &repo.did, Some("alice.test"));
    assert_eq!(net.run(PDS, &identity).sent().frame, identity);
}

#[test]
fn a_forced_look_without_answer_ends_with_the_old_key() {
    let (mut net, repo) = known_account();
    let mut forged = repo.clone();
    forged.key = Repo::new(99, Curve::K256).key;
    let bad = net.send(PDS, &forged.post().encode(2));
    let good = net.send(PDS, &repo.clone().post().encode(3));
    net.turn();
    assert_eq!(net.take_lookups().len(), 1);
    net.pass_seconds(60);
    net.accounts.handle_timeout(net.now);
    net.turn();
    assert_eq!(net.fates[bad].refused(), Reason::SignatureInvalid);
    net.fates[good].sent();
}

#[test]
fn while_the_directory_is_silent_a_later_event_shows_that_the_key_still_holds() {
    let (mut net, repo) = known_account();
    let mut forged = repo.clone();
    forged.key = Repo::new(99, Curve::K256).key;
    let bad = net.send(PDS, &forged.post().encode(2));
    net.turn();
    assert_eq!(net.take_lookups().len(), 1);
    net.pass_seconds(20);
    let mut honest = repo.clone();
    let good = [3, 4].map(|seq| net.send(PDS, &honest.post().encode(seq)));
    net.turn();
    let due = net.accounts.next_timeout().unwrap();
    assert_eq!(due.micros() - net.now.micros(), 5_000_000);
    net.pass_seconds(4);
    net.accounts.handle_timeout(net.now);
    net.turn();
    assert_eq!(net.fates[good[1]], Fate::Parked, "the answer may still come");
    net.pass_seconds(1);
    net.accounts.handle_timeout(net.now);
    net.turn();
    assert_eq!(net.fates[bad].refused(), Reason::SignatureInvalid);
    for ticket in good {
        net.fates[ticket].sent();
    }
}

#[test]
fn an_old_document_is_fetched_anew_while_events_go_on() {
    let (mut net, mut repo) = known_account();
    net.pass_seconds(24 * 3600);
    for seq in 2..5 {
        let ticket = net.send(PDS, &repo.post().encode(seq));
        net.turn();
        net.fates[ticket].sent();
    }
    let lookups = net.take_lookups();
    assert_eq!(lookups.len(), 1);
    assert!(lookups[0].fresh && !lookups[0].state_wanted);
    let answer = net.answer_to(&lookups[0]);
    net.accounts.handle_answer(answer, net.now);
    net.run(PDS, &repo.post().encode(6)).sent();
    assert_eq!(net.take_lookups().len(), 0);
}

#[test]
fn a_new_key_is_found_when_the_old_one_fails() {
    let (mut net, mut repo) = known_account();
    repo.key = Repo::new(99, Curve::K256).key;
    net.publish(&repo, PDS, "alice.test");
    net.run(PDS, &repo.post().encode(2)).sent();
    net.run(PDS, &repo.post().encode(3)).sent();
    assert_eq!(net.asked.len(), 2);
}

#[test]
fn a_document_without_key_is_no_use() {
    let mut net = Net::new();
    let mut repo = net.repo(1);
    let Some(IdentityAnswer::Found(identity)) = net.directory.get_mut(&repo.did) else {
        panic!("published above")
    };
    identity.key = None;
    assert_eq!(net.run(PDS, &repo.post().encode(1)).refused(), Reason::KeyMissing);
    net.run(PDS, &account_frame(&repo.did, true, None)).sent();
}

#[test]
fn an_account_moves_to_the_host_that_its_document_names() {
    let (mut net, mut repo) = known_account();
    assert_eq!(
        net.run(OTHER_PDS, &account_frame(&repo.did, true, None)).refused(),
        Reason::HostMismatch
    );
    net.publish(&repo, OTHER_PDS, "alice.test");
    net.run(OTHER_PDS, &account_frame(&repo.did, true, None)).sent();
    assert!(!net.run(OTHER_PDS, &repo.post().encode(2)).sent().discontinuous);
    // What the old host has to say does not count any more.
    let away = account_frame(&repo.did, false, Some("deactivated"));
    assert_eq!(net.run(PDS, &away).refused(), Reason::HostMismatch);
    net.run(OTHER_PDS, &repo.post().encode(3)).sent();
}

#[test]
fn a_host_that_is_not_the_accounts_cannot_make_us_ask_for_ever() {
    let (mut net, mut repo) = known_account();
    let frame = repo.post().encode(2);
    let asked = net.asked.len();
    for _ in 0..3 {
        assert_eq!(net.run(OTHER_PDS, &frame).refused(), Reason::HostMismatch);
    }
    // The others wait for the next look-up, all for one, and the account's own events don't.
    let waiting: Vec<_> = (0..17).map(|_| net.send(OTHER_PDS, &frame)).collect();
    net.settle();
    assert!(waiting.iter().all(|ticket| net.fates[*ticket] == Fate::Parked));
    net.run(PDS, &frame).sent();
    assert_eq!(net.asked.len(), asked + 3);
    // Nor does it use up what the account's own host may cause.
    repo.key = Repo::new(99, Curve::K256).key;
    net.publish(&repo, PDS, "alice.test");
    net.run(PDS, &repo.post().encode(3)).sent();
    for ticket in waiting {
        assert_eq!(net.fates[ticket].refused(), Reason::HostMismatch, "looked up with the key");
    }
}

#[test]
fn an_identity_event_is_looked_up_before_it_is_passed_on() {
    let (mut net, repo) = known_account();
    net.publish(&repo, PDS, "bob.test");
    let ticket = net.send(PDS, &identity_frame(2, &repo.did, Some("bob.test")));
    net.turn();
    assert_eq!(net.fates[ticket], Fate::Parked);
    net.settle();
    assert!(net.asked.last().unwrap().fresh);
    assert_eq!(net.fates[ticket].sent().frame, identity_frame(2, &repo.did, Some("bob.test")));
}

#[test]
fn a_handle_that_the_document_does_not_claim_is_left_out() {
    let (mut net, repo) = known_account();
    for handle in ["mallory.test", "handle.invalid"] {
        let lie = identity_frame(2, &repo.did, Some(handle));
        let fate = net.run(PDS, &lie);
        assert_eq!(fate.sent().frame, frame::without_handle(&lie).unwrap());
        assert_eq!(fate.sent().frame, identity_frame(2, &repo.did, None));
    }
    let upper = identity_frame(3, &repo.did, Some("Alice.Test"));
    assert_eq!(net.run(PDS, &upper).sent().frame, upper);
}

#[test]
fn the_first_event_of_an_account_may_be_an_identity() {
    let mut net = Net::new();
    let repo = net.repo(1);
    let identity = identity_frame(1, &repo.did, Some("alice.test"));
    assert_eq!(net.run(PDS, &identity).sent().frame, identity);
    assert_eq!(net.asked.len(), 1, "a fresh document is fresh enough");
}

#[test]
fn many_identity_events_are_passed_on_without_asking_each_time() {
    let (mut net, repo) = known_account();
    let asked = net.asked.len();
    for seq in 2..12 {
        net.run(PDS, &identity_frame(seq, &repo.did, Some("alice.test"))).sent();
    }
    // Five in a burst, and four because the document is now known to be out of date.
    assert_eq!(net.asked.len(), asked + 9);
    net.pass_seconds(30);
    net.run(PDS, &identity_frame(13, &repo.did, None)).sent();
    assert_eq!(net.asked.len(), asked + 10);
}

#[test]
fn another_hosts_identity_event_passes_only_if_the_document_has_changed() {
    let (mut net, mut repo) = known_account();
    let frame = identity_frame(2, &repo.did, Some("bob.test"));
    assert_eq!(net.run(OTHER_PDS, &frame).refused(), Reason::IdentityUnchanged);
    net.publish(&repo, PDS, "bob.test");
    assert_eq!(net.run(OTHER_PDS, &frame).sent().frame, frame);
    assert_eq!(net.run(OTHER_PDS, &frame).refused(), Reason::IdentityUnchanged);
    net.pass_seconds(300);
    repo.key = Repo::new(99, Curve::K256).key;
    net.publish(&repo, PDS, "bob.test");
    net.run(OTHER_PDS, &frame).sent();
    // It has brought the new key, and has not moved the account.
    net.run(PDS, &repo.post().encode(3)).sent();
}

#[test]
fn an_account_event_sets_the_status() {
    let (mut net, mut repo) = known_account();
    for (word, status) in [
        ("deactivated", StatusWord::Deactivated),
        ("takendown", StatusWord::Takendown),
        ("deleted", StatusWord::Deleted),
        ("something-new", StatusWord::Other),
    ] {
        let frame = account_frame(&repo.did, false, Some(word));
        let fate = net.run(PDS, &frame);
        assert_eq!(fate.sent().frame, frame);
        assert_eq!(fate.sent().upstream, UpstreamStatus { active: false, word: status });
        assert_eq!(net.run(PDS, &repo.post().encode(2)).refused(), Reason::AccountInactive);
        net.run(PDS, &account_frame(&repo.did, true, None)).sent();
        net.run(PDS, &repo.post().encode(3)).sent();
    }
    let throttled = account_frame(&repo.did, true, Some("throttled"));
    assert_eq!(net.run(PDS, &throttled).sent().frame, throttled);
    net.run(PDS, &repo.post().encode(4)).sent();
}

#[test]
fn a_local_status_goes_before_the_hosts() {
    for (local, word) in
        [(LocalStatus::Takendown, "takendown"), (LocalStatus::Throttled, "throttled")]
    {
        let mut net = Net::new();
        let repo = net.repo(1);
        net.preset(&repo, |state| state.local = local);
        let fate = net.run(PDS, &account_frame(&repo.did, true, None));
        assert_eq!(fate.refused(), Reason::StatusUnchanged);
        // The relay has said it before: nobody had heard of it.
        assert_eq!(net.made.len(), 1);
        assert_eq!(said(&net.made[0]), (false, Some(word.to_owned())));
        assert_eq!(net.made[0].upstream, UpstreamStatus::ACTIVE);
    }
}

fn said(sent: &Sent) -> (bool, Option<String>) {
    let event = frame::parse(&sent.frame).unwrap();
    let frame::Body::Account(account) = event.body else { panic!("an #account") };
    (account.active, account.status.map(str::to_owned))
}

#[test]
fn a_tombstoned_account_may_still_be_told_deleted_but_not_commit() {
    let (mut net, mut repo) = known_account();
    net.directory.insert(repo.did.clone(), IdentityAnswer::NotFound);
    let identity = identity_frame(2, &repo.did, Some("alice.test"));
    assert_eq!(net.run(PDS, &identity).sent().frame, identity_frame(2, &repo.did, None));
    assert_eq!(net.run(PDS, &repo.post().encode(3)).refused(), Reason::IdentityNotFound);
    net.run(PDS, &account_frame(&repo.did, false, Some("deleted"))).sent();
}

#[test]
fn parked_frames_are_bounded() {
    let mut config = AccountsConfig::new(ShardId(0));
    // A quarter of what is free, each.
    config.parked_bytes_max = 30_000;
    config.parked_wait = Duration::from_secs(5);
    let mut net = Net::with(config);
    let mut repo = net.repo(1);
    let tickets: Vec<usize> = (1..20).map(|seq| net.send(PDS, &repo.post().encode(seq))).collect();
    net.turn();
    let refused = tickets.iter().filter(|ticket| net.fates[**ticket] != Fate::Parked).count();
    assert!(refused > 0 && refused < tickets.len());
    assert_eq!(net.fates[*tickets.last().unwrap()].refused(), Reason::IdentityUnavailable);
}

#[test]
fn the_last_refusals_are_reported() {
    let (mut net, repo) = known_account();
    net.accounts.take_tally();
    for seq in 0..100 {
        net.send(PDS, &repo.sync(seq));
    }
    net.settle();
    let tally = net.accounts.take_tally();
    assert_eq!(tally.refused[Reason::RevStale.index()], 100);
    assert_eq!(tally.refusals.len(), 16);
    let last = tally.refusals.last().unwrap();
    assert_eq!(last.host_seq.map(|seq| seq.0), Some(99));
    assert_eq!((last.reason, last.did.as_deref()), (Reason::RevStale, Some(&*repo.did)));
    assert_eq!(net.accounts.take_tally().refusals.len(), 0);
}

#[test]
fn an_answer_that_nobody_asked_for_is_taken_as_news() {
    let (mut net, mut repo) = known_account();
    repo.key = Repo::new(99, Curve::K256).key;
    net.publish(&repo, PDS, "alice.test");
    let IdentityAnswer::Found(identity) = &net.directory[&repo.did] else { panic!("published") };
    let identity = Identity { fetched_at: TODAY, ..identity.clone() };
    let answer = ports::AccountAnswer {
        did: repo.did.as_str().into(),
        state: None,
        identity: IdentityAnswer::Found(identity),
        fresh: true,
        host_status: None,
    };
    net.accounts.handle_answer(answer, net.now);
    net.run(PDS, &repo.post().encode(2)).sent();
    assert_eq!(net.asked.len(), 1);
}
