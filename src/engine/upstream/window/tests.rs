use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const LIMITS: WindowLimits = WindowLimits { items: 4, bytes: 1000 };
const HEAD: RelaySeq = RelaySeq(100);

fn resume(cursor: Option<u64>, emitted: &[u64]) -> HostResume {
    HostResume {
        cursor: cursor.map(HostSeq),
        emitted: emitted.iter().copied().map(HostSeq).collect(),
        reset: false,
    }
}

fn ticket(window: &mut HostWindow, seq: u64, bytes: usize) -> u64 {
    admitted(window, seq, bytes).0
}

/// The ticket, and whether the event may have been taken before.
fn admitted(window: &mut HostWindow, seq: u64, bytes: usize) -> (u64, bool) {
    match window.admit(HostSeq(seq), bytes, HEAD) {
        Admission::Ticket { ticket, rewound } => (ticket, rewound),
        other => panic!("{seq} was not admitted: {other:?}"),
    }
}

#[test]
fn the_cursor_waits_for_the_first_unfinished_event() {
    let mut window = HostWindow::new(LIMITS, &resume(None, &[]));
    let tickets = [5, 7, 9].map(|seq| ticket(&mut window, seq, 10));
    assert!(!window.finish(tickets[1]));
    assert_eq!(window.cursor(), None);
    assert!(window.finish(tickets[0]));
    assert_eq!(window.cursor(), Some(HostSeq(7)));
    assert!(window.finish(tickets[2]));
    assert_eq!(window.cursor(), Some(HostSeq(9)));
    assert!(!window.finish(tickets[2]), "a ticket ends once");
}

#[test]
fn numbers_must_rise_within_a_connection() {
    let mut window = HostWindow::new(LIMITS, &resume(Some(4), &[]));
    ticket(&mut window, 6, 10);
    assert_eq!(window.admit(HostSeq(6), 10, HEAD), Admission::Behind);
    assert_eq!(window.admit(HostSeq(5), 10, HEAD), Admission::Behind);
    assert_eq!(window.admit(HostSeq(1 << 53), 10, HEAD), Admission::Unusable);
    assert_eq!(window.admit(HostSeq(u64::MAX), 10, HEAD), Admission::Unusable);
    ticket(&mut window, 7, 10);
}

#[test]
fn a_host_that_was_open_without_an_event_goes_on_from_where_control_says() {
    let mut window = HostWindow::new(LIMITS, &resume(None, &[3]));
    assert_eq!(window.connect(&resume(None, &[3])), None);
    assert_eq!(window.connect(&resume(Some(0), &[])), Some(HostSeq(0)));
    assert_eq!(window.admit(HostSeq(3), 10, HEAD), Admission::Duplicate);
    ticket(&mut window, 4, 10);
    assert_eq!(window.connect(&resume(Some(0), &[])), Some(HostSeq(4)));
}

#[test]
fn a_host_that_goes_back_is_followed_once_nothing_is_in_our_hands() {
    let mut window = HostWindow::new(LIMITS, &resume(Some(4), &[]));
    let (first, second) = (ticket(&mut window, 5, 10), ticket(&mut window, 6, 10));
    window.finish(second);
    assert_eq!(window.connect(&resume(Some(1), &[])), Some(HostSeq(6)));
    assert_eq!(window.admit(HostSeq(3), 10, HEAD), Admission::Wait);
    window.finish(first);
    // It begins again, or anew: what it had reached before is told apart by revs.
    let again = [3, 4, 6].map(|seq| admitted(&mut window, seq, 10));
    assert!(again.iter().all(|(_, rewound)| *rewound));
    assert_eq!(window.cursor(), Some(HostSeq(2)));
    assert!(again.into_iter().all(|(ticket, _)| window.finish(ticket)));
    assert_eq!(window.cursor(), Some(HostSeq(6)));
    assert!(!admitted(&mut window, 7, 10).1);
    // A second time it reaches less far: what counts is the farthest.
    assert_eq!(window.connect(&resume(None, &[])), Some(HostSeq(7)));
    assert_eq!(window.admit(HostSeq(1), 10, HEAD), Admission::Wait);
}

#[test]
fn what_was_thrown_away_is_asked_for_and_taken_again() {
    let mut window = HostWindow::new(LIMITS, &resume(Some(4), &[]));
    let [fifth, sixth, seventh] = [5, 6, 7].map(|seq| ticket(&mut window, seq, 10));
    window.finish(fifth);
    window.drop_ticket(sixth);
    window.finish(seventh);
    assert_eq!(window.cursor(), Some(HostSeq(5)));
    assert_eq!(window.connect(&resume(Some(5), &[])), Some(HostSeq(5)));
    let again = ticket(&mut window, 6, 10);
    assert_eq!(window.admit(HostSeq(7), 10, HEAD), Admission::Duplicate);
    window.finish(again);
    assert_eq!((window.cursor(), window.bytes), (Some(HostSeq(7)), 0));
}

#[test]
fn a_window_full_of_what_was_thrown_away_takes_it_again() {
    let mut window = HostWindow::new(LIMITS, &resume(Some(4), &[]));
    let tickets = [5, 6, 7, 8].map(|seq| ticket(&mut window, seq, 10));
    for ticket in tickets {
        window.drop_ticket(ticket);
    }
    assert_eq!(window.connect(&resume(None, &[])), Some(HostSeq(4)));
    assert!(!window.has_room() && !window.has_room_for(HostSeq(9)));
    for seq in 5..=8 {
        assert!(window.has_room_for(HostSeq(seq)));
        let again = ticket(&mut window, seq, 10);
        window.finish(again);
    }
    assert_eq!((window.cursor(), window.bytes), (Some(HostSeq(8)), 0));
}

#[test]
fn a_host_may_turn_back_on_a_connection_again_and_again() {
    let mut window = HostWindow::new(LIMITS, &resume(Some(9), &[]));
    let mut old = ticket(&mut window, 10, 10);
    window.finish(old);
    for _ in 0..5000 {
        window.turn_back();
        let (again, rewound) = admitted(&mut window, 5, 10);
        assert!(rewound && !window.finish(old));
        window.turn_back();
        assert_eq!(window.admit(HostSeq(5), 10, HEAD), Admission::Wait);
        assert!(window.finish(again));
        old = again;
    }
    assert_eq!(window.cursor(), Some(HostSeq(5)));
}

#[test]
fn events_emitted_before_a_crash_are_stepped_over() {
    let mut window = HostWindow::new(LIMITS, &resume(Some(4), &[8, 6, 6, 3]));
    assert_eq!(window.log_floor(HEAD), RelaySeq(0));
    let fifth = ticket(&mut window, 5, 10);
    assert_eq!(window.admit(HostSeq(6), 10, HEAD), Admission::Duplicate);
    assert_eq!(window.cursor(), Some(HostSeq(4)));
    window.finish(fifth);
    assert_eq!(window.cursor(), Some(HostSeq(6)));
    assert_eq!(window.log_floor(HEAD), RelaySeq(0));
    // The host has lost 8 meanwhile.
    let ninth = ticket(&mut window, 9, 10);
    window.finish(ninth);
    assert_eq!((window.cursor(), window.log_floor(HEAD)), (Some(HostSeq(9)), HEAD));
}

#[test]
fn a_new_numbering_forgets_the_old_one() {
    let mut window = HostWindow::new(LIMITS, &resume(Some(900), &[]));
    let old = ticket(&mut window, 901, 10);
    let fresh = HostResume { reset: true, ..HostResume::default() };
    assert_eq!(window.connect(&fresh), None);
    let new = ticket(&mut window, 1, 10);
    assert!(!window.finish(old));
    assert_eq!(window.cursor(), None);
    assert!(window.finish(new));
    assert_eq!(window.cursor(), Some(HostSeq(1)));
}

#[test]
fn items_and_bytes_fill_it() {
    let mut window = HostWindow::new(LIMITS, &resume(None, &[]));
    let large = ticket(&mut window, 1, 1000);
    assert!(!window.has_room());
    window.pass(large);
    assert!(window.has_room());
    let rest = [2, 3, 4].map(|seq| ticket(&mut window, seq, 1));
    assert!(!window.has_room());
    window.finish(rest[0]);
    assert!(!window.has_room(), "the first still holds the others");
    window.finish(large);
    assert!(window.has_room());
}

#[test]
fn the_floor_is_the_head_at_the_oldest_admission() {
    let mut window = HostWindow::new(LIMITS, &resume(Some(1), &[]));
    let second = ticket(&mut window, 2, 1);
    assert!(matches!(window.admit(HostSeq(3), 1, RelaySeq(150)), Admission::Ticket { .. }));
    assert_eq!(window.log_floor(RelaySeq(200)), HEAD);
    window.finish(second);
    assert_eq!(window.log_floor(RelaySeq(200)), RelaySeq(150));
}

/// The plain truth: sets of numbers.
#[derive(Default)]
struct Model {
    cursor: Option<u64>,
    last: Option<u64>,
    asked: Option<u64>,
    newest: Option<u64>,
    reached: Option<u64>,
    open: BTreeMap<u64, u64>,
    done: BTreeSet<u64>,
    emitted: BTreeSet<u64>,
}

impl Model {
    fn admit(&mut self, seq: u64) -> &'static str {
        if self.last.is_some_and(|last| seq <= last) {
            return "order";
        }
        if self.last.is_none() && self.asked.is_some_and(|asked| seq <= asked) {
            if !self.open.is_empty() {
                return "wait";
            }
            self.reached = self.reached.max(self.newest).max(self.emitted.last().copied());
            (self.done, self.emitted) = (BTreeSet::new(), BTreeSet::new());
            self.cursor = Some(seq.saturating_sub(1));
            self.newest = self.cursor;
        }
        self.last = Some(seq);
        if self.cursor.is_some_and(|cursor| seq <= cursor) || self.known(seq) {
            return "duplicate";
        }
        self.newest = self.newest.max(Some(seq));
        if self.emitted.remove(&seq) {
            self.done.insert(seq);
            self.advance();
            return "duplicate";
        }
        "ticket"
    }

    fn known(&self, seq: u64) -> bool {
        self.open.contains_key(&seq) || self.done.contains(&seq)
    }

    fn advance(&mut self) {
        let below = self.open.keys().next().copied().unwrap_or(u64::MAX);
        while let Some(seq) = self.done.first().copied().filter(|seq| *seq < below) {
            self.done.remove(&seq);
            self.cursor = Some(seq);
        }
        if let Some(cursor) = self.cursor {
            self.emitted.retain(|seq| *seq > cursor);
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Admit(u64),
    Finish(usize),
    Connect,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..40_u64).prop_map(Act::Admit),
        3 => (0..20_usize).prop_map(Act::Finish),
        1 => Just(Act::Connect),
    ]
}

proptest! {
    #[test]
    fn behaves_as_sets_of_numbers_do(
        cursor in prop::option::of(0..10_u64),
        emitted in prop::collection::vec(0..40_u64, 0..8),
        acts in prop::collection::vec(act(), 0..120),
    ) {
        let limits = WindowLimits { items: 1000, bytes: 1 << 20 };
        let mut window = HostWindow::new(limits, &resume(cursor, &emitted));
        let mut model = Model { cursor, newest: cursor, ..Model::default() };
        model.emitted = emitted.into_iter().filter(|seq| cursor.is_none_or(|at| *seq > at)).collect();
        for act in acts {
            match act {
                Act::Admit(seq) => {
                    let expected = model.admit(seq);
                    match window.admit(HostSeq(seq), 7, HEAD) {
                        Admission::Ticket { ticket, rewound } => {
                            prop_assert_eq!(expected, "ticket");
                            prop_assert_eq!(rewound, Some(seq) <= model.reached);
                            model.open.insert(seq, ticket);
                        }
                        Admission::Duplicate => prop_assert_eq!(expected, "duplicate"),
                        Admission::Wait => prop_assert_eq!(expected, "wait"),
                        Admission::Behind => prop_assert_eq!(expected, "order"),
                        Admission::Unusable => prop_assert!(false, "all can be used"),
                    }
                }
                Act::Finish(index) => {
                    let open = model.open.iter().nth(index).map(|(seq, ticket)| (*seq, *ticket));
                    if let Some((seq, ticket)) = open {
                        model.open.remove(&seq);
                        model.done.insert(seq);
                        model.advance();
                        window.finish(ticket);
                    }
                }
                Act::Connect => {
                    model.last = None;
                    let from = window.connect(&resume(cursor, &[])).map(|seq| seq.0);
                    model.asked = from;
                    prop_assert!(model.open.keys().all(|seq| Some(*seq) <= from));
                    prop_assert!(model.cursor <= from);
                }
            }
            prop_assert_eq!(window.cursor().map(|seq| seq.0), model.cursor);
            prop_assert_eq!(window.bytes, model.open.len() * 7);
            prop_assert_eq!(window.entries.is_empty(), model.open.is_empty() && model.done.is_empty());
        }
    }
}
