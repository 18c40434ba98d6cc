//! States of accounts: what hosts say, what the relay says, and what consumers hear of it.

use std::time::Duration;

use ports::{
    AccountState, Effective, LocalStatus, LookupWhy, RefusalReason as Reason, SetLocal, ShardId,
    StatusWord, UpstreamStatus,
};
use protocol::frame::{self, Body};

use super::{super::AccountsConfig, kit::*};

const GONE: UpstreamStatus = UpstreamStatus { active: false, word: StatusWord::Deactivated };

/// An account with one commit, and its state as stored.
fn known() -> (Net, Repo, AccountState) {
    let mut net = Net::new();
    let mut repo = net.repo(1);
    net.run(PDS, &repo.post().encode(1)).sent();
    let state = net.store[&repo.did];
    (net, repo, state)
}

fn set_local(net: &mut Net, repo: &Repo, state: AccountState, local: LocalStatus) {
    let state = AccountState { local, ..state };
    let set = SetLocal { did: repo.did.as_str().into(), state };
    net.accounts.handle_set_local(&set, net.now);
    net.collect();
}

/// What the relay's own #account events said so far.
fn made(net: &Net) -> Vec<(bool, Option<String>)> {
    let said = |sent: &Sent| {
        let event = frame::parse(&sent.frame).unwrap();
        assert!(protocol::syntax::datetime::check(event.time), "{}", event.time);
        let Body::Account(account) = event.body else { panic!("an #account") };
        (account.active, account.status.map(str::to_owned))
    };
    net.made.iter().map(said).collect()
}

fn word(active: bool, word: &str) -> (bool, Option<String>) {
    (active, Some(word.to_owned()))
}

#[test]
fn an_account_event_that_is_no_news_does_not_go_out() {
    let (mut net, repo, _) = known();
    let active = account_frame(&repo.did, true, None);
    net.run(PDS, &active).sent();
    assert_eq!(net.run(PDS, &active).refused(), Reason::StatusUnchanged);
    // The host says it anew.
    let later = frame::account_frame(&repo.did, "2026-11-25T00:00:09Z", true, None);
    net.run(PDS, &later).sent();
    assert_eq!(net.run(PDS, &later).refused(), Reason::StatusUnchanged);
    let odd = |status| account_frame(&repo.did, false, Some(status));
    net.run(PDS, &odd("odd")).sent();
    assert_eq!(net.run(PDS, &odd("odd")).refused(), Reason::StatusUnchanged);
    net.run(PDS, &odd("odder")).sent();
    net.run(PDS, &active).sent();
    assert!(net.made.is_empty());
}

#[test]
fn a_take_down_is_told_once_and_undone_by_its_reversal_alone() {
    let (mut net, mut repo, state) = known();
    set_local(&mut net, &repo, state, LocalStatus::Takendown);
    assert_eq!(made(&net), [word(false, "takendown")]);
    assert_eq!(net.run(PDS, &repo.post().encode(2)).refused(), Reason::AccountTakendown);
    let gone = account_frame(&repo.did, false, Some("deactivated"));
    assert_eq!(net.run(PDS, &gone).refused(), Reason::StatusUnchanged);
    // No event tells what the host said: it is reported when all before it is synced.
    assert_eq!(net.accounts.poll_noted(1), None);
    assert_eq!(net.accounts.poll_noted(2), Some((state.id, GONE)));
    set_local(&mut net, &repo, state, LocalStatus::Active);
    assert_eq!(made(&net)[1..], [word(false, "deactivated")]);
    net.run(PDS, &account_frame(&repo.did, true, None)).sent();
    net.run(PDS, &repo.post().encode(3)).sent();
    let set = net.accounts.take_local_set();
    assert_eq!(set.len(), 2);
    assert_eq!(set[1], (state.id, LocalStatus::Active));
}

#[test]
fn a_take_down_is_told_even_if_the_host_has_said_the_same() {
    let (mut net, repo, state) = known();
    net.run(PDS, &account_frame(&repo.did, false, Some("takendown"))).sent();
    set_local(&mut net, &repo, state, LocalStatus::Takendown);
    assert_eq!(made(&net), [word(false, "takendown")]);
    // Consumers believe what still counts.
    set_local(&mut net, &repo, state, LocalStatus::Active);
    assert_eq!(net.made.len(), 1);
}

#[test]
fn an_account_that_is_not_in_memory_is_taken_down_as_stored() {
    let mut net = Net::new();
    let mut repo = net.repo(1);
    net.preset(&repo, |_| {});
    let state = net.store[&repo.did];
    set_local(&mut net, &repo, state, LocalStatus::Takendown);
    assert_eq!(made(&net), [word(false, "takendown")]);
    assert_eq!(net.run(PDS, &repo.post().encode(1)).refused(), Reason::AccountTakendown);
}

#[test]
fn what_was_not_told_before_a_restart_is_told_first() {
    let cases = [
        (LocalStatus::Takendown, None, Some("takendown")),
        (LocalStatus::Throttled, None, Some("throttled")),
        (LocalStatus::Throttled, Some(Effective::ACTIVE), Some("throttled")),
        (LocalStatus::Active, Some(Effective::ACTIVE), None),
        (LocalStatus::Active, None, None),
    ];
    for (local, announced, expected) in cases {
        let mut net = Net::new();
        let mut repo = net.repo(1);
        net.preset(&repo, |state| {
            state.local = local;
            state.announced = announced;
        });
        net.run(PDS, &repo.post().encode(1));
        net.run(PDS, &repo.post().encode(2));
        let told: Vec<_> = expected.into_iter().map(|status| word(false, status)).collect();
        assert_eq!(made(&net), told);
    }
}

#[test]
fn a_throttled_account_comes_back_with_an_event_and_its_next_commit() {
    let (mut net, mut repo, state) = known();
    set_local(&mut net, &repo, state, LocalStatus::Throttled);
    assert_eq!(net.run(PDS, &repo.post().encode(2)).refused(), Reason::AccountThrottled);
    set_local(&mut net, &repo, state, LocalStatus::Active);
    assert_eq!(made(&net), [word(false, "throttled"), (true, None)]);
    assert!(net.run(PDS, &repo.post().encode(3)).sent().discontinuous);
}

#[test]
fn an_inactive_account_is_active_if_its_host_says_so() {
    let (mut net, mut repo, _) = known();
    net.run(PDS, &account_frame(&repo.did, false, Some("deactivated"))).sent();
    net.host_says.insert(repo.did.clone(), UpstreamStatus::ACTIVE);
    let tickets = [2, 3].map(|seq| net.send(PDS, &repo.post().encode(seq)));
    net.turn();
    assert!(tickets.iter().all(|ticket| net.fates[*ticket] == Fate::Parked));
    let lookups = net.take_lookups();
    assert_eq!(lookups.len(), 1);
    assert_eq!((lookups[0].why, lookups[0].sender), (LookupWhy::Inactive, PDS));
    let answer = net.answer_to(&lookups[0]);
    net.accounts.handle_answer(answer, net.now);
    net.collect();
    assert_eq!(made(&net), [(true, None)], "before its commits");
    net.settle();
    for ticket in tickets {
        net.fates[ticket].sent();
    }
}

#[test]
fn an_inactive_account_s_host_is_not_asked_for_ever() {
    let (mut net, mut repo, _) = known();
    net.run(PDS, &account_frame(&repo.did, false, Some("deactivated"))).sent();
    let asked = net.asked.len();
    for seq in 2..20 {
        assert_eq!(net.run(PDS, &repo.post().encode(seq)).refused(), Reason::AccountInactive);
    }
    assert_eq!(net.asked.len(), asked + 3);
    assert_eq!(net.run(PDS, &repo.sync(20)).refused(), Reason::AccountInactive);
    net.host_says.insert(repo.did.clone(), UpstreamStatus::ACTIVE);
    net.pass_seconds(60);
    net.run(PDS, &repo.post().encode(21)).sent();
    assert_eq!(net.asked.len(), asked + 4);
}

#[test]
fn another_reason_that_the_host_gives_is_told() {
    let (mut net, mut repo, _) = known();
    net.run(PDS, &account_frame(&repo.did, false, Some("deactivated"))).sent();
    let deleted = UpstreamStatus { active: false, word: StatusWord::Deleted };
    net.host_says.insert(repo.did.clone(), deleted);
    assert_eq!(net.run(PDS, &repo.post().encode(2)).refused(), Reason::AccountInactive);
    assert_eq!(made(&net), [word(false, "deleted")]);
}

#[test]
fn the_first_word_of_a_new_host_goes_out_though_it_is_no_news() {
    let (mut net, mut repo, _) = known();
    let active = account_frame(&repo.did, true, None);
    net.run(PDS, &active).sent();
    net.publish(&repo, OTHER_PDS, "alice.test");
    net.run(OTHER_PDS, &active).sent();
    assert_eq!(net.run(OTHER_PDS, &active).refused(), Reason::StatusUnchanged);
    net.run(OTHER_PDS, &repo.post().encode(2)).sent();
}

#[test]
fn what_a_host_repeats_after_it_went_back_is_not_told_again() {
    let (mut net, mut repo, _) = known();
    let identity = identity_frame(2, &repo.did, Some("alice.test"));
    let status = account_frame(&repo.did, true, None);
    net.run(PDS, &identity).sent();
    net.run(PDS, &status).sent();
    net.rewound = true;
    assert_eq!(net.run(PDS, &identity).refused(), Reason::IdentityUnchanged);
    assert_eq!(net.run(PDS, &status).refused(), Reason::StatusUnchanged);
    net.run(PDS, &repo.post().encode(3)).sent();
    net.publish(&repo, PDS, "bob.test");
    net.run(PDS, &identity_frame(4, &repo.did, Some("bob.test"))).sent();
}

#[test]
fn a_collection_of_an_account_is_told_once() {
    let (mut net, mut repo, state) = known();
    let told = |net: &mut Net| {
        let found = net.accounts.take_collections().into_iter();
        let mut names: Vec<_> = found
            .map(|(account, name)| {
                assert_eq!(account, state.id);
                String::from(name)
            })
            .collect();
        names.sort();
        names
    };
    assert_eq!(told(&mut net), ["app.bsky.feed.post"]);
    net.run(PDS, &repo.post().encode(2)).sent();
    assert!(told(&mut net).is_empty());
    let paths: Vec<String> = (0..80).map(|number| format!("test.many.c{number}/a")).collect();
    let changes: Vec<(&str, bool)> = paths.iter().map(|path| (path.as_str(), true)).collect();
    net.run(PDS, &repo.apply(&changes).encode(3)).sent();
    assert_eq!(told(&mut net).len(), 80);
    // Those with a bit of their own and the others; a commit that is refused tells nothing.
    net.run(PDS, &repo.apply(&changes).encode(4)).sent();
    let mut bad = repo.clone().apply(&[("test.bad.one/a", true)]);
    bad.prev_data = Some(bad.commit);
    net.run(PDS, &bad.encode(5)).refused();
    net.run(PDS, &repo.apply(&[("test.gone.two/a", true), ("test.many.c1/a", false)]).encode(6));
    assert_eq!(told(&mut net), ["test.gone.two"]);
}

#[test]
fn forgotten_accounts_are_read_again_as_of_their_last_event() {
    const ACCOUNTS: u64 = 64;
    const IN_MEMORY: usize = 16;
    let config = AccountsConfig {
        accounts_max: IN_MEMORY,
        parked_wait: Duration::from_mins(1),
        ..AccountsConfig::new(ShardId(0))
    };
    let mut net = Net::with(config);
    let mut repos: Vec<_> = (1..=ACCOUNTS).map(|number| net.repo(number)).collect();
    let mut events = 0;
    for round in 0..4u64 {
        for repo in &mut repos {
            let fate = net.run(PDS, &repo.post().encode(round));
            assert!(!fate.sent().discontinuous, "the head that was read is the last one");
            events += 1;
            // The log, and the store behind it, are as of this event.
            let head = repo.head();
            net.store.get_mut(&repo.did).unwrap().head = Some(head);
            net.accounts.note_synced(events, ports::RelaySeq(events));
        }
        assert!(net.accounts.take_tally().accounts <= IN_MEMORY as u64 + 2);
    }
    let last = net.asked.last().unwrap();
    assert!(last.state_wanted && last.as_of.0 > 0 && last.as_of.0 <= events, "{last:?}");
}

#[test]
fn nothing_is_forgotten_while_its_events_are_not_synced() {
    let config = AccountsConfig { accounts_max: 4, ..AccountsConfig::new(ShardId(0)) };
    let mut net = Net::with(config);
    let mut repos: Vec<_> = (1..=32).map(|number| net.repo(number)).collect();
    for _ in 0..3 {
        for repo in &mut repos {
            net.run(PDS, &repo.post().encode(1)).sent();
        }
    }
    // One round may pass before anything was verified; the second one waits.
    assert!(net.accounts.take_tally().accounts >= 28);
}
