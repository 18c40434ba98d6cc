//! Floods of events for accounts that are not the sender's, or not at all: they cost nobody else
//! anything, neither memory nor the directory more than is bounded, and end in quarantine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::{
    author::Author,
    eventually,
    lab::{Host, Lab, UNTRUSTED},
    pds::write_message,
};

/// What the relay may grow by: its bounds on what waits, and slack.
const GROWTH_BYTES_MAX: usize = 128 << 20;

/// Else its event rates would hold the flood back.
const NO_RATES: &str = "per_second=1000000&per_hour=1000000&per_day=1000000";

/// Sends a block of events that are written as they are.
fn flood(host: &mut Host, kind: &str, bodies: impl Iterator<Item = serde_json::Value>) {
    let mut bytes = Vec::new();
    for body in bodies {
        let (_, frame) = host.frame(kind, &body);
        write_message(&mut bytes, &frame);
    }
    host.pds.send_raw(&bytes);
}

/// Accounts of a host that do nothing wrong, old ones and new ones, come out while `attack` is under
/// way.
fn others_do_not_notice(lab: &mut Lab, bystander: &mut Host, attack: impl FnOnce(&mut Lab)) {
    let mut known = lab.author(bystander);
    let mut told = vec![bystander.post(&mut known)];
    lab.wait_told(&known, &told);
    let before = lab.relay.resident_bytes();
    attack(lab);
    for _ in 0..20 {
        let mut new = lab.author(bystander);
        told.push(bystander.post(&mut known));
        let revs = [bystander.post(&mut new), bystander.post(&mut new)];
        lab.wait_told(&new, &revs);
    }
    lab.wait_told(&known, &told);
    let grown = lab.relay.resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "grown by {grown} bytes");
}

#[test]
fn a_flood_of_accounts_that_nobody_knows() {
    const FLOOD: u64 = 6000;
    let mut lab = Lab::start(60, UNTRUSTED);
    let (mut attacker, mut bystander) = (lab.host(), lab.host());
    lab.set_limits(&attacker, NO_RATES);
    lab.set_limits(&bystander, NO_RATES);
    let mut honest = lab.author(&attacker);
    let first = attacker.post(&mut honest);
    lab.wait_told(&honest, &[&first]);
    let asked = lab.plc.requests_in_all();
    others_do_not_notice(&mut lab, &mut bystander, |lab| {
        let bodies: Vec<_> =
            (0..FLOOD).map(|_| lab.stranger()).map(|author| author.account(true, None)).collect();
        flood(&mut attacker, "account", bodies.into_iter());
    });
    let row = eventually("the quarantine", || {
        let row = lab.row(&attacker);
        (row["Status"] == "throttled").then_some(row)
    });
    let reason = row["StatusReason"].as_str().unwrap();
    assert!(reason.starts_with("quarantine-"), "{reason}");
    attacker.pds.wait_for_hang_up();
    // It comes back by itself, and what it says of its own accounts counts again.
    let second = attacker.post(&mut honest);
    lab.wait_told(&honest, &[&first, &second]);
    let asked = lab.plc.requests_in_all() - asked;
    assert!(asked <= FLOOD as usize + 100, "{asked} questions");
}

#[test]
fn a_flood_of_forged_commits_for_accounts_of_others() {
    const FLOOD: usize = 3000;
    const VICTIMS: usize = 30;
    let mut lab = Lab::start(61, UNTRUSTED);
    let (mut attacker, mut bystander) = (lab.host(), lab.host());
    lab.set_limits(&attacker, NO_RATES);
    lab.set_limits(&bystander, NO_RATES);
    let mut victims: Vec<Author> = (0..VICTIMS).map(|_| lab.author(&bystander)).collect();
    for author in &mut victims {
        let rev = bystander.post(author);
        lab.wait_told(author, &[rev]);
    }
    let asked = lab.plc.requests_in_all();
    others_do_not_notice(&mut lab, &mut bystander, |_| {
        let mut forgers: Vec<Author> = victims
            .iter()
            .zip(7..)
            .map(|(author, number)| Author::with_did(&author.did, number))
            .collect();
        let bodies: Vec<_> = (0..FLOOD).map(|at| forgers[at % VICTIMS].post()).collect();
        flood(&mut attacker, "commit", bodies.into_iter());
    });
    for author in &mut victims {
        let before = lab.told(author);
        assert_eq!(before.len(), 1, "a forged commit came out");
        let rev = bystander.post(author);
        lab.wait_told(author, &[before[0].clone(), rev]);
    }
    // A few for each victim, and one for each new account.
    let asked = lab.plc.requests_in_all() - asked;
    assert!(asked <= 21 + VICTIMS * 5, "{asked} questions");
}

#[test]
fn a_flood_of_bad_signatures_of_its_own_accounts() {
    const FLOOD: usize = 2000;
    let mut lab = Lab::start(62, UNTRUSTED);
    let (mut attacker, mut bystander) = (lab.host(), lab.host());
    lab.set_limits(&attacker, NO_RATES);
    lab.set_limits(&bystander, NO_RATES);
    let mut own = lab.author(&attacker);
    let mut told = vec![attacker.post(&mut own)];
    lab.wait_told(&own, &told);
    let asked = lab.plc.requests(&own.did);
    others_do_not_notice(&mut lab, &mut bystander, |_| {
        let mut forger = Author::with_did(&own.did, 9);
        forger.post();
        let bodies: Vec<_> = (0..FLOOD).map(|_| forger.post()).collect();
        flood(&mut attacker, "commit", bodies.into_iter());
    });
    lab.wait_refused("signature-invalid", FLOOD as u64);
    told.push(attacker.post(&mut own));
    lab.wait_told(&own, &told);
    let asked = lab.plc.requests(&own.did) - asked;
    assert!(asked <= 6, "{asked} questions");
}

/// What is said of an account that its host had called inactive is asked for at a pace, and nobody
/// waits for a host that does not answer.
#[test]
fn commits_of_an_inactive_account_do_not_make_the_relay_ask_without_end() {
    let mut lab = Lab::start(63, &[]);
    let (mut host, mut other) = (lab.host(), lab.host());
    let mut author = lab.author(&host);
    let mut told = vec![host.post(&mut author)];
    host.send("account", &author.account(false, Some("deactivated")));
    told.push("deactivated".to_owned());
    lab.wait_told(&author, &told);

    host.pds.set_statuses_hang(true);
    for _ in 0..200 {
        host.post(&mut author);
    }
    eventually("the question", || (host.pds.status_requests(&author.did) > 0).then_some(()));
    // Others of the same host, and of another one, go on while it hangs.
    for host in [&mut host, &mut other] {
        let mut quick = lab.author(host);
        let revs: Vec<String> = (0..10).map(|_| host.post(&mut quick)).collect();
        lab.wait_told(&quick, &revs);
    }
    lab.wait_told(&author, &told);
    let status = serde_json::json!({ "did": author.did, "active": false, "status": "deactivated" });
    host.pds.set_status(&author.did, status.to_string());
    host.pds.set_statuses_hang(false);
    lab.wait_refused("account-inactive", 200);
    lab.wait_told(&author, &told);
    let asked = host.pds.status_requests(&author.did);
    assert!(asked <= 5, "{asked} questions");
}
