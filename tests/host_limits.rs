//! What a host may: accounts up to its limit, nonsense up to its budget; and what brings accounts back
//! that were held back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::{
    author::{Author, TIME},
    eventually,
    lab::{Host, Lab, UNTRUSTED},
};
use serde_json::json;

fn start(number: u64, arguments: &[&str]) -> Lab {
    Lab::start(number, &[UNTRUSTED, arguments].concat())
}

/// So many accounts that have posted, one after the other, so that they have an order.
fn authors_in_order(lab: &mut Lab, host: &mut Host, count: usize) -> Vec<Author> {
    let mut authors: Vec<Author> = (0..count).map(|_| lab.author(host)).collect();
    for author in &mut authors {
        host.post(author);
        eventually("the account", || (!lab.told(author).is_empty()).then_some(()));
    }
    authors
}

#[test]
fn accounts_above_the_limit_wait_for_places_and_get_them_in_their_order() {
    let mut lab = start(10, &["--default-account-limit", "2"]);
    let mut host = lab.host();
    let mut authors = authors_in_order(&mut lab, &mut host, 5);
    for (number, author) in authors.iter().enumerate() {
        let first = if number < 2 { author.rev() } else { "throttled".to_owned() };
        lab.wait_told(author, &[first]);
    }
    lab.wait_refused("account-throttled", 3);
    let status = format!("/xrpc/com.atproto.sync.getRepoStatus?did={}", authors[2].did);
    let told = lab.relay.get(&status).json();
    assert_eq!((&told["active"], &told["status"]), (&json!(false), &json!("throttled")));

    // A deleted account frees its place for the one that has waited longest.
    host.send("account", &authors[0].account(false, Some("deleted")));
    lab.wait_last(&authors[0], "deleted");
    lab.wait_told(&authors[2], &["throttled", "active"]);
    let mut third = authors.remove(2);
    let rev = host.post(&mut third);
    lab.wait_told(&third, &["throttled", "active", &rev]);

    // A higher limit has places for all.
    lab.set_limits(&host, "repo_limit=10");
    for author in &mut authors[2..] {
        lab.wait_told(author, &["throttled", "active"]);
        let rev = host.post(author);
        lab.wait_told(author, &["throttled", "active", &rev]);
    }
    // A lower one takes nothing away.
    lab.set_limits(&host, "repo_limit=1");
    let first = lab.told(&authors[1])[0].clone();
    let rev = host.post(&mut authors[1]);
    lab.wait_told(&authors[1], &[first, rev]);
    let mut late = lab.author(&host);
    host.post(&mut late);
    lab.wait_told(&late, &["throttled"]);
}

#[test]
fn places_are_given_out_oldest_first_and_once_over_kills() {
    let mut lab = start(13, &["--default-account-limit", "3"]);
    let (mut host, mut other) = (lab.host(), lab.host());
    let mut authors = authors_in_order(&mut lab, &mut host, 10);
    let revs: Vec<String> = authors[..3].iter().map(Author::rev).collect();
    lab.wait_accounts(&host, 3);

    // Stopped before, and killed right after the operator was told that it is done.
    lab.restart(false);
    lab.set_limits(&host, "repo_limit=6");
    lab.restart(true);
    for author in &authors[3..6] {
        lab.wait_told(author, &["throttled", "active"]);
    }
    lab.wait_accounts(&host, 6);

    // A place gets free by a deletion, however often it is told, and by a move.
    for _ in 0..3 {
        host.send("account", &authors[0].account(false, Some("deleted")));
    }
    lab.wait_told(&authors[6], &["throttled", "active"]);
    lab.wait_told(&authors[0], &[revs[0].as_str(), "deleted"]);
    authors[1].register(&lab.plc, &other.pds);
    let moved = other.post(&mut authors[1]);
    lab.wait_told(&authors[1], &[&revs[1], &moved]);
    lab.wait_told(&authors[7], &["throttled", "active"]);
    lab.wait_accounts(&other, 1);
    lab.wait_accounts(&host, 6);

    lab.restart(false);
    lab.wait_accounts(&host, 6);
    for (number, author) in authors.iter_mut().enumerate().skip(2) {
        let before = lab.told(author);
        let rev = host.post(author);
        match number {
            2 => lab.wait_told(author, &[&revs[2], &rev]),
            3..8 => lab.wait_told(author, &["throttled", "active", &rev]),
            _ => assert_eq!(before, ["throttled"]),
        }
    }
    lab.wait_refused("account-throttled", 2);
    for author in &authors[8..] {
        lab.wait_told(author, &["throttled"]);
    }
}

#[test]
fn an_account_that_its_host_calls_active_comes_back_with_its_commits() {
    let mut lab = start(11, &[]);
    let mut host = lab.host();
    let mut author = lab.author(&host);
    let first = host.post(&mut author);
    host.send("account", &author.account(false, Some("deactivated")));
    lab.wait_told(&author, &[first.as_str(), "deactivated"]);
    // The host knows of no such account, or says that it sleeps: the commit is refused.
    host.post(&mut author);
    lab.wait_refused("account-inactive", 1);
    // It has forgotten to say that the account is back, and says so when it is asked.
    let status = json!({ "did": author.did, "active": true, "rev": author.rev() });
    host.pds.set_status(&author.did, status.to_string());
    let rev = eventually("the account to come back", || {
        let rev = host.post(&mut author);
        (lab.told(&author).len() > 3).then_some(rev)
    });
    lab.wait_last(&author, &rev);
    let told = lab.told(&author);
    assert_eq!(told[..3], [first.as_str(), "deactivated", "active"], "{told:?}");
    assert!(told[3..].is_sorted() && !told[3..].contains(&"active".to_owned()), "{told:?}");
}

#[test]
fn a_flood_of_nonsense_ends_in_quarantine_and_the_quarantine_by_itself() {
    const FLOOD: u64 = 6000;
    let mut lab = start(12, &[]);
    let mut host = lab.host();
    let mut author = lab.author(&host);
    let first = host.post(&mut author);
    lab.wait_told(&author, &[&first]);
    // Else its event rates would hold it back.
    lab.set_limits(&host, "per_second=100000&per_hour=100000&per_day=100000");
    for _ in 0..FLOOD {
        host.send("identity", &json!({ "did": author.did, "time": format!("{TIME}x") }));
    }
    let row = eventually("the quarantine", || {
        let row = lab.row(&host);
        (row["Status"] == "throttled").then_some(row)
    });
    assert_eq!(row["StatusReason"], "quarantine-invalid-events");
    let status = lab.host_status(&host);
    assert_eq!(status["status"], "throttled");
    assert_eq!(status["statusReason"], "quarantine-invalid-events");
    assert!(status["statusUntil"].is_string(), "{status}");
    let told = eventually("the refusals", || {
        let told = lab.explain(&format!("host={}", host.pds.hostname()));
        told["refusals"][0].is_object().then_some(told)
    });
    assert_eq!(told["host"]["status_reason"], "quarantine-invalid-events", "{told}");
    assert!(told["host"]["status_until"].is_string(), "{told}");
    assert_eq!(told["refusals"][0]["reason"], "time-syntax", "{told}");
    host.pds.wait_for_hang_up();
    let second = host.post(&mut author);
    lab.wait_told(&author, &[&first, &second]);
    eventually("the end of the quarantine", || {
        (lab.row(&host)["Status"] == "active").then_some(())
    });
    assert!(host.pds.cursors().len() <= 3, "{:?}", host.pds.cursors());
}

#[test]
fn a_lenient_host_that_has_shown_that_it_can_is_held_to_the_strict_rules() {
    let mut lab = start(14, &["--lenient-sync-validation"]);
    let mut host = lab.host();
    let mut author = lab.author(&host);
    host.post(&mut author);
    // An old host: passed on, and the count begins anew.
    let mut old = lab.author(&host);
    host.post(&mut old);
    let legacy = |old: &mut Author| {
        let mut legacy = old.post();
        legacy.as_object_mut().unwrap().remove("prevData");
        legacy
    };
    host.send("commit", &legacy(&mut old));
    lab.wait_last(&old, &old.rev());
    // What is reported together with the old one does not count.
    eventually("the host to be held to the strict rules", || {
        host.post(&mut author);
        lab.relay.log().contains("keeps the strict rules").then_some(())
    });
    let refused = |lab: &Lab, host: &mut Host, old: &mut Author| {
        eventually("a commit of the old form to be refused", || {
            host.send("commit", &legacy(old));
            let label = "reason=\"prev-data-missing\"";
            (lab.relay.metric("relayered_accounts_refusals_total", label) >= 1.0).then_some(())
        });
    };
    refused(&lab, &mut host, &mut old);
    // That is remembered. A host that has shown nothing is not affected.
    lab.restart(false);
    refused(&lab, &mut host, &mut old);
    let mut other = lab.host();
    let mut its = lab.author(&other);
    other.post(&mut its);
    other.send("commit", &legacy(&mut its));
    lab.wait_last(&its, &its.rev());
}
