//! Accounts that move from host to host: the document decides, counts follow, and who no longer holds
//! an account is not heard.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::{Fault, lab::Lab};

#[test]
fn an_account_moves_with_the_first_event_of_its_new_host_and_is_counted_there() {
    let mut lab = Lab::start(31, &[]);
    let (mut old, mut new) = (lab.host(), lab.host());
    let mut author = lab.author(&old);
    let mut stays = lab.author(&old);
    let mut told = vec![old.post(&mut author)];
    lab.wait_told(&author, &told);
    let rest = old.post(&mut stays);
    lab.wait_told(&stays, &[rest]);
    lab.wait_accounts(&old, 2);
    lab.wait_accounts(&new, 0);

    author.register(&lab.plc, &new.pds);
    let asked = lab.plc.requests(&author.did);
    told.push(new.post(&mut author));
    told.push(new.post(&mut author));
    lab.wait_told(&author, &told);
    assert_eq!(lab.plc.requests(&author.did), asked + 1, "one look-up for the move");
    lab.wait_accounts(&old, 1);
    lab.wait_accounts(&new, 1);

    // Whatever the old host has to say of it.
    old.send("account", &author.account(false, Some("deactivated")));
    old.send("sync", &author.sync());
    let next = author.post();
    old.send("commit", &next);
    lab.wait_refused("host-mismatch", 3);
    new.send("commit", &next);
    told.push(author.rev());
    lab.wait_told(&author, &told);

    // Also over a restart; what its cursor was not past yet comes again.
    let asked = lab.plc.requests(&author.did);
    lab.restart(true);
    old.send("account", &author.account(false, Some("deleted")));
    told.push(new.post(&mut author));
    lab.wait_told(&author, &told);
    lab.wait_refused("host-mismatch", 1);
    lab.wait_accounts(&old, 1);
    lab.wait_accounts(&new, 1);
    assert!(lab.plc.requests(&author.did) <= asked + 3);
    lab.wait_told(&author, &told);
}

#[test]
fn a_move_waits_for_the_directory_and_holds_up_nobody() {
    for fault in [Fault::Status(500), Fault::Limited(1), Fault::Hang, Fault::Garbage] {
        let mut lab = Lab::start(32, &[]);
        let (mut old, mut new) = (lab.host(), lab.host());
        let mut author = lab.author(&old);
        let mut stays = lab.author(&old);
        let mut told = vec![old.post(&mut author)];
        let mut rest = vec![old.post(&mut stays)];
        lab.wait_told(&author, &told);
        lab.wait_told(&stays, &rest);

        lab.plc.set_fault(fault);
        let asked = lab.plc.requests(&author.did);
        author.register(&lab.plc, &new.pds);
        let moved: Vec<String> = (0..5).map(|_| new.post(&mut author)).collect();
        harness::eventually("a question", || (lab.plc.requests(&author.did) > asked).then_some(()));
        // The others of the old host go on meanwhile.
        for _ in 0..10 {
            rest.push(old.post(&mut stays));
        }
        lab.wait_told(&stays, &rest);
        lab.wait_told(&author, &told);
        lab.plc.set_fault(Fault::None);
        told.extend(moved);
        lab.wait_told(&author, &told);
        lab.wait_accounts(&new, 1);
    }
}

#[test]
fn who_speaks_for_accounts_of_others_causes_few_questions_and_delays_nothing() {
    let mut lab = Lab::start(33, &[]);
    let (mut own, mut other) = (lab.host(), lab.host());
    let mut author = lab.author(&own);
    let mut told = vec![own.post(&mut author)];
    lab.wait_told(&author, &told);
    let asked = lab.plc.requests(&author.did);
    let lie = author.account(false, Some("deleted"));
    for _ in 0..500 {
        other.send("account", &lie);
    }
    for _ in 0..20 {
        told.push(own.post(&mut author));
    }
    lab.wait_told(&author, &told);
    lab.wait_refused("host-mismatch", 1);
    let asked = lab.plc.requests(&author.did) - asked;
    assert!((1..=5).contains(&asked), "{asked} questions");
    lab.wait_told(&author, &told);
}

#[test]
fn an_account_may_move_away_and_back() {
    let mut lab = Lab::start(34, &[]);
    let mut hosts = [lab.host(), lab.host()];
    let mut author = lab.author(&hosts[0]);
    let mut told = Vec::new();
    for turn in 0..4 {
        let (here, there) = (turn % 2, (turn + 1) % 2);
        author.register(&lab.plc, &hosts[here].pds);
        hosts[here].send("account", &author.account(true, None));
        // The first word of a host to which it has come goes out, though it is no news.
        told.push("active".to_owned());
        told.push(hosts[here].post(&mut author));
        lab.wait_told(&author, &told);
        lab.wait_accounts(&hosts[here], 1);
        lab.wait_accounts(&hosts[there], 0);
    }
}
