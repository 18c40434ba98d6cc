use proptest::prelude::*;

use super::*;

type Tickets = Desk<u32>;

fn config() -> IdentityConfig {
    IdentityConfig { plc_requests_per_second: 1_000_000, ..IdentityConfig::default() }
}

/// The n-th valid did:plc.
fn plc(number: u32) -> String {
    let digits: String = number.to_string().bytes().map(|digit| (digit + 49) as char).collect();
    format!("did:plc:{digits:a>24}")
}

fn document(pds: &str) -> Document {
    let pds = Some(Endpoint { tls: true, host: pds.to_owned() });
    Document { key: None, pds, handle: None, fetched_at: 1 }
}

fn found(pds: &str) -> FetchOutcome {
    FetchOutcome::Found(document(pds))
}

const DOWN: FetchOutcome = FetchOutcome::Unavailable { retry_after: None };

fn ask(desk: &mut Tickets, did: &str, fresh: bool, ticket: u32, now: Instant) {
    let need = need(fresh);
    desk.handle_ask(Ask { did, sender: HostId(1), need, stored: None }, ticket, now);
}

fn need(fresh: bool) -> Need {
    if fresh { Need::Other } else { Need::Any }
}

fn fetch(desk: &mut Tickets, outcome: FetchOutcome, now: Instant) {
    let (did, _) = desk.poll_fetch(now).expect("a fetch");
    desk.handle_fetched(&did, outcome, now);
}

/// The ticket, the host that the document names (or why not), and whether it is fresh.
fn answer(desk: &mut Tickets) -> (u32, String, bool) {
    let (ticket, answer) = desk.poll_answer().expect("an answer");
    let text = match answer.result {
        AnswerResult::Found(document) => document.pds.as_ref().unwrap().host.clone(),
        AnswerResult::NotFound => "not found".to_owned(),
        AnswerResult::Unavailable => "unavailable".to_owned(),
    };
    (ticket, text, answer.fresh)
}

#[track_caller]
fn expect(desk: &mut Tickets, ticket: u32, text: &str, fresh: bool) {
    assert_eq!(answer(desk), (ticket, text.to_owned(), fresh));
}

#[test]
fn one_fetch_serves_all_who_ask_meanwhile_and_the_cache_those_who_come_later() {
    let mut now = Instant::now();
    let mut desk = Desk::new(config(), now);
    let did = plc(1);
    for ticket in 0..100 {
        ask(&mut desk, &did, ticket % 2 == 0, ticket, now);
    }
    fetch(&mut desk, found("a.com"), now);
    assert_eq!(desk.poll_fetch(now), None);
    for ticket in 0..100 {
        expect(&mut desk, ticket, "a.com", true);
    }
    now += Duration::from_hours(23);
    ask(&mut desk, &did, false, 100, now);
    expect(&mut desk, 100, "a.com", false);
    // An old one is used and renewed meanwhile, once.
    now += Duration::from_hours(2);
    for ticket in 101..103 {
        ask(&mut desk, &did, false, ticket, now);
        expect(&mut desk, ticket, "a.com", false);
    }
    fetch(&mut desk, found("b.com"), now);
    assert_eq!(desk.poll_fetch(now), None);
    ask(&mut desk, &did, false, 103, now);
    expect(&mut desk, 103, "b.com", false);
    // A very old one is not used.
    now += Duration::from_hours(8 * 24);
    ask(&mut desk, &did, false, 104, now);
    fetch(&mut desk, found("c.com"), now);
    expect(&mut desk, 104, "c.com", true);
    let stats = desk.stats();
    assert_eq!((stats.joined, stats.hits, stats.found, stats.cached), (99, 4, 3, 1));
}

#[test]
fn insisting_costs_one_fetch_in_a_few_seconds() {
    let mut now = Instant::now();
    let mut desk = Desk::new(IdentityConfig { fresh_burst: 1, ..config() }, now);
    let did = plc(1);
    ask(&mut desk, &did, false, 0, now);
    fetch(&mut desk, found("a.com"), now);
    expect(&mut desk, 0, "a.com", true);
    now += Duration::from_secs(1);
    for ticket in 1..50 {
        ask(&mut desk, &did, true, ticket, now);
    }
    // The content are served meanwhile.
    ask(&mut desk, &did, false, 50, now);
    expect(&mut desk, 50, "a.com", false);
    assert_eq!(desk.poll_fetch(now), None);
    now += Duration::from_secs(2);
    assert_eq!(desk.next_timeout(now), Some(now));
    desk.handle_timeout(now);
    fetch(&mut desk, found("b.com"), now);
    for ticket in 1..50 {
        expect(&mut desk, ticket, "b.com", true);
    }
    assert_eq!(desk.poll_fetch(now), None);
}

#[test]
fn an_account_may_change_several_times_at_once() {
    let mut now = Instant::now();
    let mut desk = Desk::new(config(), now);
    let did = plc(1);
    for ticket in 0..5 {
        ask(&mut desk, &did, true, ticket, now);
        fetch(&mut desk, found("a.com"), now);
        expect(&mut desk, ticket, "a.com", true);
    }
    ask(&mut desk, &did, true, 5, now);
    assert_eq!(desk.poll_fetch(now), None);
    now += Duration::from_secs(3);
    desk.handle_timeout(now);
    fetch(&mut desk, found("b.com"), now);
    expect(&mut desk, 5, "b.com", true);
}

/// Asks once, lets the directory fail, and says how long it took until there was an answer.
fn patience(need: Need) -> Duration {
    let start = Instant::now();
    let mut now = start;
    let mut desk = Desk::new(config(), now);
    let did = plc(1);
    ask(&mut desk, &did, false, 0, now);
    fetch(&mut desk, found("a.com"), now);
    expect(&mut desk, 0, "a.com", true);
    now += Duration::from_secs(10);
    desk.handle_ask(Ask { did: &did, sender: HostId(1), need, stored: None }, 1, now);
    let asked = now;
    loop {
        desk.handle_timeout(now);
        while let Some((did, _)) = desk.poll_fetch(now) {
            desk.handle_fetched(&did, DOWN, now);
        }
        if let Some((ticket, answer)) = desk.poll_answer() {
            assert_eq!((ticket, answer.result), (1, AnswerResult::Unavailable));
            return now - asked;
        }
        now += Duration::from_secs(1);
    }
}

#[test]
fn who_hopes_for_something_newer_waits_for_a_moment_and_who_needs_it_for_long() {
    let moment = patience(Need::Newer);
    assert!((5..=10).contains(&moment.as_secs()), "{moment:?}");
    let long = patience(Need::Other);
    assert!((590..=602).contains(&long.as_secs()), "{long:?}");
}

#[test]
fn a_server_of_an_account_s_own_is_not_waited_for_as_long_as_the_directory() {
    let outcome_after = |did: &str, seconds: u64| {
        let start = Instant::now();
        let mut desk = Desk::new(config(), start);
        let mut last = String::new();
        for second in (0..=seconds).step_by(5) {
            let now = start + Duration::from_secs(second);
            ask(&mut desk, did, false, 0, now);
            desk.handle_timeout(now);
            if let Some((did, _)) = desk.poll_fetch(now) {
                desk.handle_fetched(&did, DOWN, now);
            }
            while let Some((_, given)) = desk.poll_answer() {
                last = format!("{:?}", given.result);
            }
        }
        last
    };
    assert_eq!(outcome_after("did:web:a.com", 40), "Unavailable");
    assert_eq!(outcome_after("did:web:a.com", 50), "NotFound");
    assert_eq!(outcome_after(&plc(1), 500), "Unavailable");
}

#[test]
fn who_insists_sits_out_trouble() {
    let mut now = Instant::now();
    let mut desk = Desk::new(config(), now);
    let did = plc(1);
    ask(&mut desk, &did, true, 0, now);
    ask(&mut desk, &did, false, 1, now);
    fetch(&mut desk, DOWN, now);
    expect(&mut desk, 1, "unavailable", false);
    now += Duration::from_secs(3);
    desk.handle_timeout(now);
    fetch(&mut desk, found("a.com"), now);
    expect(&mut desk, 0, "a.com", true);
}

#[test]
fn with_the_directory_down_nobody_waits_for_something_newer() {
    let now = Instant::now();
    let mut desk = Desk::new(config(), now);
    let did = plc(0);
    ask(&mut desk, &did, false, 0, now);
    fetch(&mut desk, found("a.com"), now);
    expect(&mut desk, 0, "a.com", true);
    for number in 1..=5 {
        ask(&mut desk, &plc(number), false, number, now);
        fetch(&mut desk, DOWN, now);
        expect(&mut desk, number, "unavailable", false);
    }
    assert!(desk.stats().directory_in_trouble);
    let newer = Ask { did: &did, sender: HostId(1), need: Need::Newer, stored: None };
    desk.handle_ask(newer, 6, now);
    expect(&mut desk, 6, "unavailable", false);
}

#[test]
fn each_waits_as_long_as_it_may() {
    let mut now = Instant::now();
    let mut desk = Desk::new(config(), now);
    let did = plc(1);
    for (ticket, need) in [(0, Need::Newer), (1, Need::Other), (2, Need::Newer)] {
        desk.handle_ask(Ask { did: &did, sender: HostId(1), need, stored: None }, ticket, now);
    }
    // Nobody fetches: the queue stands still.
    now += Duration::from_secs(10);
    desk.handle_timeout(now);
    expect(&mut desk, 0, "unavailable", false);
    expect(&mut desk, 2, "unavailable", false);
    assert_eq!(desk.poll_answer(), None);
    fetch(&mut desk, found("a.com"), now);
    expect(&mut desk, 1, "a.com", true);
}

#[test]
fn a_definite_no_holds_for_two_minutes() {
    let mut now = Instant::now();
    let mut desk = Desk::new(config(), now);
    let did = plc(1);
    ask(&mut desk, &did, false, 0, now);
    fetch(&mut desk, FetchOutcome::NotFound, now);
    expect(&mut desk, 0, "not found", true);
    now += Duration::from_secs(119);
    ask(&mut desk, &did, false, 1, now);
    expect(&mut desk, 1, "not found", false);
    now += Duration::from_secs(2);
    ask(&mut desk, &did, false, 2, now);
    fetch(&mut desk, found("a.com"), now);
    expect(&mut desk, 2, "a.com", true);
}

#[test]
fn what_can_not_be_resolved_is_not_asked_for() {
    let now = Instant::now();
    let mut desk = Desk::new(config(), now);
    let hostile = [
        "",
        "did:plc:short",
        "did:plc:ABCDEFGHIJKLMNOPQRSTUVWX",
        "did:web:a.com:path",
        "did:key:zabc",
        "did:plc:aaaaaaaaaaaaaaaaaaaaaaa/../",
        "https://a.com",
    ];
    for (ticket, did) in (0..).zip(hostile) {
        ask(&mut desk, did, true, ticket, now);
        expect(&mut desk, ticket, "not found", false);
    }
    assert_eq!(desk.poll_fetch(now), None);
    assert_eq!(desk.stats().cached, 0);
}

#[test]
fn an_old_document_holds_while_the_directory_fails() {
    let mut now = Instant::now();
    let mut desk = Desk::new(config(), now);
    let did = plc(1);
    ask(&mut desk, &did, false, 0, now);
    fetch(&mut desk, found("a.com"), now);
    expect(&mut desk, 0, "a.com", true);
    now += Duration::from_hours(8 * 24);
    ask(&mut desk, &did, false, 1, now);
    ask(&mut desk, &did, true, 2, now);
    fetch(&mut desk, DOWN, now);
    expect(&mut desk, 1, "a.com", false);
    ask(&mut desk, &did, false, 3, now);
    expect(&mut desk, 3, "a.com", false);
    // Who knows that the old one will not do is not given it.
    now += Duration::from_mins(10);
    desk.handle_timeout(now);
    expect(&mut desk, 2, "unavailable", false);
    assert_eq!(desk.poll_answer(), None);
}

#[test]
fn what_the_store_holds_serves_like_the_cache() {
    let now = Instant::now();
    let mut desk = Desk::new(config(), now);
    let stored = |hours: u64| Some((document("a.com"), Duration::from_secs(hours * 3600)));
    let mut with = |number, fresh, stored, ticket| {
        let did = plc(number);
        desk.handle_ask(
            Ask { did: &did, sender: HostId(1), need: need(fresh), stored },
            ticket,
            now,
        );
    };
    with(1, false, stored(3), 0);
    with(2, false, stored(30), 1);
    with(3, true, stored(3), 2);
    expect(&mut desk, 0, "a.com", false);
    // Old, and renewed: the first fetch is for that.
    expect(&mut desk, 1, "a.com", false);
    fetch(&mut desk, DOWN, now);
    fetch(&mut desk, found("b.com"), now);
    expect(&mut desk, 2, "b.com", true);
}

#[test]
fn a_directory_in_trouble_is_tried_seldom_and_known_accounts_do_not_wait_for_it() {
    let start = Instant::now();
    let mut now = start;
    let mut desk = Desk::new(config(), now);
    ask(&mut desk, &plc(0), false, 0, now);
    fetch(&mut desk, found("a.com"), now);
    expect(&mut desk, 0, "a.com", true);
    now += Duration::from_hours(25);
    let outage = now;
    let mut fetches = 0;
    let mut number = 1;
    while now < outage + Duration::from_hours(1) {
        // A new DID each second, none of which can be found out about.
        ask(&mut desk, &plc(number), false, number, now);
        number += 1;
        desk.handle_timeout(now);
        while let Some((did, _)) = desk.poll_fetch(now) {
            fetches += 1;
            desk.handle_fetched(&did, DOWN, now);
        }
        while let Some((_, given)) = desk.poll_answer() {
            assert_eq!(given.result, AnswerResult::Unavailable);
        }
        now += Duration::from_secs(1);
    }
    assert!((300..900).contains(&fetches), "{fetches}");
    assert!(desk.stats().directory_in_trouble);
    ask(&mut desk, &plc(0), false, 1, now);
    expect(&mut desk, 1, "a.com", false);
    // Back again: those who wait are served, and all places are used.
    now += Duration::from_secs(16);
    fetch(&mut desk, found("b.com"), now);
    assert!(!desk.stats().directory_in_trouble);
    let waiting = desk.stats().queued;
    assert!(waiting > 0);
    while let Some((did, _)) = desk.poll_fetch(now) {
        desk.handle_fetched(&did, found("b.com"), now);
    }
    assert_eq!(desk.stats().queued, 0);
}

#[test]
fn retry_after_is_honoured() {
    let mut now = Instant::now();
    let mut desk = Desk::new(config(), now);
    ask(&mut desk, &plc(1), false, 1, now);
    let pause = Some(Duration::from_secs(20));
    fetch(&mut desk, FetchOutcome::Unavailable { retry_after: pause }, now);
    expect(&mut desk, 1, "unavailable", false);
    now += Duration::from_secs(10);
    ask(&mut desk, &plc(2), false, 2, now);
    assert_eq!(desk.poll_fetch(now), None);
    now += Duration::from_secs(10);
    assert_eq!(desk.next_timeout(now), Some(now));
    fetch(&mut desk, found("a.com"), now);
    expect(&mut desk, 2, "a.com", true);
}

#[test]
fn a_flood_of_unknown_dids_from_one_host_starves_nobody() {
    let now = Instant::now();
    let settings = IdentityConfig { queue_per_sender_max: 1000, plc_in_flight_max: 4, ..config() };
    let mut desk = Desk::new(settings, now);
    for number in 0..5000 {
        ask(&mut desk, &plc(number), false, number, now);
    }
    let turned_away = desk.stats().turned_away;
    assert_eq!(turned_away, 4000);
    for _ in 0..turned_away {
        let (_, text, _) = answer(&mut desk);
        assert_eq!(text, "unavailable");
    }
    let did = plc(9999);
    desk.handle_ask(Ask { did: &did, sender: HostId(2), need: Need::Any, stored: None }, 9999, now);
    let first: Vec<_> = std::iter::from_fn(|| desk.poll_fetch(now)).collect();
    // Even an empty queue of the other would have left it two of the four places.
    assert_eq!(first.len(), 3);
    assert!(first.iter().take(2).any(|(fetched, _)| **fetched == *did));
}

#[test]
fn slow_servers_of_one_host_leave_places_for_others() {
    let now = Instant::now();
    let mut desk = Desk::new(config(), now);
    for number in 0..100 {
        ask(&mut desk, &format!("did:web:x{number}.evil.com"), false, number, now);
    }
    let taken = std::iter::from_fn(|| desk.poll_fetch(now)).count();
    assert_eq!(taken, 4);
    // With nothing that may be sent there is nothing to wake up for but the queue's patience.
    assert!(desk.next_timeout(now).unwrap() > now);
    let other = Ask { did: "did:web:good.com", sender: HostId(2), need: Need::Any, stored: None };
    desk.handle_ask(other, 1000, now);
    ask(&mut desk, &plc(1), false, 1001, now);
    let next: Vec<_> = std::iter::from_fn(|| desk.poll_fetch(now)).map(|(did, _)| did).collect();
    assert_eq!(next.len(), 2);
}

#[test]
fn who_waits_too_long_is_told_so() {
    let mut now = Instant::now();
    let settings = IdentityConfig { plc_in_flight_max: 1, ..config() };
    let mut desk = Desk::new(settings, now);
    ask(&mut desk, &plc(1), false, 1, now);
    let (first, _) = desk.poll_fetch(now).unwrap();
    ask(&mut desk, &plc(2), false, 2, now);
    now += Duration::from_secs(20);
    ask(&mut desk, &plc(3), false, 3, now);
    now += Duration::from_secs(10);
    assert_eq!(desk.next_timeout(now), Some(now));
    desk.handle_timeout(now);
    expect(&mut desk, 2, "unavailable", false);
    assert_eq!(desk.poll_answer(), None);
    // Asked again it waits anew, and is fetched once.
    ask(&mut desk, &plc(2), false, 4, now);
    desk.handle_fetched(&first, found("a.com"), now);
    expect(&mut desk, 1, "a.com", true);
    fetch(&mut desk, found("b.com"), now);
    fetch(&mut desk, found("c.com"), now);
    assert_eq!(desk.poll_fetch(now), None);
    expect(&mut desk, 4, "b.com", true);
    expect(&mut desk, 3, "c.com", true);
    now += Duration::from_secs(100);
    desk.handle_timeout(now);
    assert_eq!(desk.poll_answer(), None);
    assert_eq!(desk.next_timeout(now), None);
}

#[test]
fn the_directory_is_asked_at_its_pace() {
    let start = Instant::now();
    let mut now = start;
    let settings = IdentityConfig { plc_requests_per_second: 10, ..config() };
    let mut desk = Desk::new(settings, now);
    for number in 0..110 {
        ask(&mut desk, &plc(number), false, number, now);
    }
    let mut fetched = 0;
    let mut last = now;
    while fetched < 110 {
        while let Some((did, _)) = desk.poll_fetch(now) {
            fetched += 1;
            last = now;
            desk.handle_fetched(&did, found("a.com"), now);
        }
        now = desk.next_timeout(now).unwrap_or(now).max(now);
    }
    let seconds = last.duration_since(start).as_secs_f64();
    assert!((9.9..10.1).contains(&seconds), "{seconds}");
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Ask { did: u32, sender: u32, fresh: bool, web: bool },
    Fetch,
    End { outcome: u8 },
    Wait { millis: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u32..12, 0_u32..3, any::<bool>(), any::<bool>())
            .prop_map(|(did, sender, fresh, web)| Step::Ask { did, sender, fresh, web }),
        3 => Just(Step::Fetch),
        3 => (0_u8..4).prop_map(|outcome| Step::End { outcome }),
        2 => (0_u32..8000).prop_map(|millis| Step::Wait { millis }),
    ]
}

proptest! {
    /// Every question gets exactly one answer, and no DID is fetched twice at a time.
    #[test]
    fn each_question_is_answered_once(steps in prop::collection::vec(step(), 1..150)) {
        let mut now = Instant::now();
        let settings = IdentityConfig {
            queue_per_sender_max: 3,
            queue_max: 6,
            plc_in_flight_max: 2,
            web_in_flight_max: 2,
            ..config()
        };
        let mut desk: Tickets = Desk::new(settings, now);
        let mut under_way: Vec<Box<str>> = Vec::new();
        let mut answers = vec![];
        let mut asked = 0_u32;
        for step in steps {
            match step {
                Step::Ask { did, sender, fresh, web } => {
                    let did = if web { format!("did:web:a{did}.com") } else { plc(did) };
                    let ask = Ask { did: &did, sender: HostId(sender), need: need(fresh), stored: None };
                    desk.handle_ask(ask, asked, now);
                    asked += 1;
                }
                Step::Fetch => {
                    if let Some((did, _)) = desk.poll_fetch(now) {
                        prop_assert!(!under_way.contains(&did));
                        under_way.push(did);
                        prop_assert!(under_way.len() <= 4);
                    }
                }
                Step::End { outcome } => {
                    if let Some(did) = under_way.pop() {
                        let outcome = match outcome {
                            0 => found("a.com"),
                            1 => FetchOutcome::NotFound,
                            _ => DOWN,
                        };
                        desk.handle_fetched(&did, outcome, now);
                    }
                }
                Step::Wait { millis } => {
                    now += Duration::from_millis(u64::from(millis));
                    desk.handle_timeout(now);
                }
            }
            answers.extend(std::iter::from_fn(|| desk.poll_answer()).map(|(ticket, _)| ticket));
        }
        for did in under_way {
            desk.handle_fetched(&did, DOWN, now);
        }
        now += Duration::from_mins(11);
        desk.handle_timeout(now);
        answers.extend(std::iter::from_fn(|| desk.poll_answer()).map(|(ticket, _)| ticket));
        answers.sort_unstable();
        prop_assert_eq!(answers, (0..asked).collect::<Vec<_>>());
    }
}
