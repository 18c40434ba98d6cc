//! A directory that is slow, full, broken or away: accounts that are known go on with what is known of
//! them, others wait and come out in order, and the directory is spared.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::time::Duration;

use harness::{
    Consumer, Fault,
    author::Author,
    eventually,
    lab::{Host, Lab},
};

/// Sends some events of each account, in turn; what must come out of each.
fn send_some(host: &mut Host, authors: &mut [Author], count: usize) -> Vec<Vec<String>> {
    let mut revs = vec![Vec::new(); authors.len()];
    for _ in 0..count {
        for (author, revs) in authors.iter_mut().zip(&mut revs) {
            revs.push(host.post(author));
        }
    }
    revs
}

/// While the directory has this fault, one that is known goes on; strangers come afterwards.
fn sit_out(number: u64, fault: Fault) {
    let mut lab = Lab::start(number, &[]);
    let mut host = lab.host();
    let mut known = lab.author(&host);
    let mut told = vec![host.post(&mut known)];
    lab.wait_told(&known, &told);

    lab.plc.set_fault(fault);
    let asked = lab.plc.requests_in_all();
    let mut strangers: Vec<Author> = (0..20).map(|_| lab.author(&host)).collect();
    let wanted = send_some(&mut host, &mut strangers, 5);
    eventually("a question", || (lab.plc.requests_in_all() > asked).then_some(()));
    for _ in 0..20 {
        told.push(host.post(&mut known));
    }
    lab.wait_told(&known, &told);
    assert_eq!(lab.consumer.count(), told.len(), "{fault:?}: something came out unverified");

    lab.plc.set_fault(Fault::None);
    for (author, revs) in strangers.iter().zip(&wanted) {
        lab.wait_told(author, revs);
    }
    lab.wait_told(&known, &told);
    let asked = lab.plc.requests_in_all() - asked;
    assert!(asked <= 20 * 8, "{fault:?}: {asked} questions");
}

#[test]
fn known_accounts_go_on_and_others_wait_whatever_the_fault() {
    std::thread::scope(|scope| {
        let faults = [
            Fault::Status(429),
            Fault::Status(500),
            Fault::Status(502),
            Fault::Status(503),
            Fault::Garbage,
            Fault::Hang,
        ];
        for (number, fault) in (40..).zip(faults) {
            scope.spawn(move || sit_out(number, fault));
        }
    });
}

#[test]
fn the_pause_that_the_directory_asks_for_is_kept() {
    const PAUSE: u64 = 3;
    let mut lab = Lab::start(47, &[]);
    let mut host = lab.host();
    lab.plc.set_fault(Fault::Limited(PAUSE));
    let mut author = lab.author(&host);
    let revs = [host.post(&mut author), host.post(&mut author)];
    eventually("a second question", || (lab.plc.requests_in_all() >= 2).then_some(()));
    lab.plc.set_fault(Fault::None);
    lab.wait_told(&author, &revs);
    let times = lab.plc.request_times();
    let gap = times[1] - times[0];
    assert!(gap >= Duration::from_secs(PAUSE), "asked again after {gap:?}");
}

#[test]
fn a_slow_directory_delays_those_who_need_it_only() {
    let mut lab = Lab::start(48, &[]);
    let (mut host, mut other) = (lab.host(), lab.host());
    let mut known = lab.author(&host);
    let mut told = vec![host.post(&mut known)];
    lab.wait_told(&known, &told);
    lab.plc.set_fault(Fault::Slow(700));
    let mut strangers: Vec<Author> = (0..100).map(|_| lab.author(&host)).collect();
    let wanted = send_some(&mut host, &mut strangers, 2);
    // Of another host: it does not wait behind all of them.
    let mut late = lab.author(&other);
    let revs = [other.post(&mut late)];
    for _ in 0..20 {
        told.push(host.post(&mut known));
    }
    lab.wait_told(&known, &told);
    lab.wait_told(&late, &revs);
    for (author, revs) in strangers.iter().zip(&wanted) {
        lab.wait_told(author, revs);
    }
    for author in &strangers {
        assert_eq!(lab.plc.requests(&author.did), 1, "one question for each");
    }
}

#[test]
fn what_is_stored_will_do_for_a_relay_that_starts_while_the_directory_is_away() {
    let mut lab = Lab::start(49, &[]);
    let mut host = lab.host();
    let mut authors: Vec<Author> = (0..10).map(|_| lab.author(&host)).collect();
    let mut wanted = send_some(&mut host, &mut authors, 1);
    for (author, revs) in authors.iter().zip(&wanted) {
        lab.wait_told(author, revs);
    }
    lab.plc.set_fault(Fault::Status(500));
    lab.restart(false);
    for (revs, more) in wanted.iter_mut().zip(send_some(&mut host, &mut authors, 3)) {
        revs.extend(more);
    }
    for (author, revs) in authors.iter().zip(&wanted) {
        lab.wait_told(author, revs);
    }
}

/// A signature that does not fit is held against the directory. While that can't be asked, an event
/// behind it that is signed with the known key shows that the key still holds.
#[test]
fn a_bad_signature_holds_up_the_good_events_behind_it_for_a_moment_only() {
    let mut lab = Lab::start(50, &[]);
    let mut host = lab.host();
    let mut author = lab.author(&host);
    let mut told = vec![host.post(&mut author)];
    lab.wait_told(&author, &told);
    lab.plc.set_fault(Fault::Hang);
    let asked = lab.plc.requests(&author.did);
    let mut forger = Author::with_did(&author.did, 1);
    // Its first one would be as old as the account's.
    forger.post();
    let forged = forger.post();
    host.send("commit", &forged);
    eventually("the question", || (lab.plc.requests(&author.did) > asked).then_some(()));
    for _ in 0..10 {
        told.push(host.post(&mut author));
    }
    lab.wait_told(&author, &told);
    lab.wait_refused("signature-invalid", 1);
}

#[test]
fn many_who_wait_for_long_do_not_ask_for_more() {
    let mut lab = Lab::start(51, &[]);
    let mut host = lab.host();
    lab.plc.set_fault(Fault::Status(500));
    let mut strangers: Vec<Author> = (0..200).map(|_| lab.author(&host)).collect();
    let wanted = send_some(&mut host, &mut strangers, 1);
    lab.relay.wait_for_metric("relayered_accounts_parked_count", "", 200.0);
    // In trouble the directory is asked for one DID at a time, with pauses.
    let asked = lab.plc.requests_in_all();
    assert!(asked <= 200 + 64, "{asked} questions");
    lab.plc.set_fault(Fault::None);
    let all = Consumer::connect(lab.relay.api, Some(0)).wait_for(200);
    assert_eq!(all.len(), 200);
    for (author, revs) in strangers.iter().zip(&wanted) {
        lab.wait_told(author, revs);
    }
}
