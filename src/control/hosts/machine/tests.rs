use proptest::prelude::*;

use super::*;

const FUTURE_CURSOR: &str = "FutureCursor";

fn machine(now: Instant) -> HostMachine {
    HostMachine::new(RetryConfig::default(), Standing::ACTIVE, Past::default(), 1, now)
}

fn stored_machine(standing: Standing, past: Past, now: Instant) -> HostMachine {
    HostMachine::new(RetryConfig::default(), standing, past, 1, now)
}

/// Polls at the time that the machine itself names.
fn next_dial(machine: &mut HostMachine, now: &mut Instant) -> Attempt {
    *now = (*now).max(machine.next_timeout().unwrap());
    machine.poll_dial(*now).unwrap()
}

fn connect(machine: &mut HostMachine, now: &mut Instant) {
    let attempt = next_dial(machine, now);
    assert!(machine.handle_dialed(attempt));
    machine.handle_open(*now);
}

#[test]
fn an_unreachable_host_is_tried_seldom_and_for_ever() {
    let start = Instant::now();
    let mut now = start;
    let mut machine = machine(now);
    let mut times = Vec::new();
    for failures in 1..=60 {
        let attempt = next_dial(&mut machine, &mut now);
        times.push(now.duration_since(start));
        machine.handle_dial_failed(attempt, now);
        let offline = machine.standing().status == HostStatus::Offline;
        assert_eq!(offline, failures >= 15);
    }
    let within = |limit: u64| times.iter().filter(|at| at.as_secs() < limit).count();
    assert!((5..=9).contains(&within(60)), "{times:?}");
    // A host that was away for ten minutes is back five minutes later at most.
    for pair in times[..15].windows(2) {
        assert!(pair[1].checked_sub(pair[0]).unwrap() <= Duration::from_mins(5));
    }
    for pair in times[15..38].windows(2) {
        assert!(pair[1].checked_sub(pair[0]).unwrap() <= Duration::from_hours(1));
        assert!(pair[1].checked_sub(pair[0]).unwrap() >= Duration::from_mins(15));
    }
    let last = times[59].checked_sub(times[58]).unwrap();
    assert!(last > Duration::from_hours(6) && last <= Duration::from_hours(24));
    assert_eq!(machine.standing().reason, Reason::Unreachable);
}

#[test]
fn a_host_that_accepts_and_closes_is_backed_off_from() {
    let start = Instant::now();
    let mut now = start;
    let mut machine = machine(now);
    let mut dials_first_minute = 0;
    for _ in 0..15 {
        connect(&mut machine, &mut now);
        dials_first_minute += usize::from(now.duration_since(start) < Duration::from_mins(1));
        machine.handle_closed(&HostFault::Closed, false, now);
    }
    assert!(dials_first_minute <= 9, "{dials_first_minute}");
    assert_eq!(machine.standing().status, HostStatus::Offline);
    // Open again, then events: the way back is short.
    connect(&mut machine, &mut now);
    assert_eq!(machine.standing(), Standing::ACTIVE);
    now += Duration::from_secs(61);
    machine.handle_closed(&HostFault::Closed, true, now);
    assert_eq!(machine.failures(), 1);
    assert!(machine.next_timeout().unwrap() <= now + Duration::from_secs(2));
}

#[test]
fn a_quiet_host_whose_connections_hold_for_a_while_never_goes_offline() {
    let mut now = Instant::now();
    let mut machine = machine(now);
    for _ in 0..100 {
        connect(&mut machine, &mut now);
        now += Duration::from_mins(2);
        machine.handle_closed(&HostFault::Closed, false, now);
        assert_eq!(machine.standing(), Standing::ACTIVE);
        assert!(machine.next_timeout().unwrap() <= now + Duration::from_secs(8));
    }
}

#[test]
fn what_ends_on_our_side_is_not_held_against_the_host() {
    let mut now = Instant::now();
    let mut machine = machine(now);
    for _ in 0..14 {
        let attempt = next_dial(&mut machine, &mut now);
        machine.handle_dial_failed(attempt, now);
    }
    connect(&mut machine, &mut now);
    machine.handle_closed(&HostFault::Stopped, false, now);
    assert_eq!((machine.standing(), machine.failures()), (Standing::ACTIVE, 14));
}

#[test]
fn one_event_for_each_connection_does_not_buy_a_dial_a_second() {
    let start = Instant::now();
    let mut now = start;
    let mut machine = machine(now);
    let mut dials = 0;
    while now < start + Duration::from_mins(10) {
        connect(&mut machine, &mut now);
        dials += 1;
        machine.handle_closed(&HostFault::Protocol("opcode"), true, now);
        assert_eq!(machine.standing().status, HostStatus::Active);
    }
    assert!(dials < 300, "{dials}");
}

#[test]
fn a_future_cursor_makes_the_host_idle_until_asked_for_and_then_starts_below() {
    let mut now = Instant::now();
    let mut machine = machine(now);
    connect(&mut machine, &mut now);
    let fault = HostFault::ErrorFrame(FUTURE_CURSOR.into());
    machine.handle_closed(&fault, false, now);
    assert_eq!(machine.standing(), Standing::idle(Reason::FutureCursor));
    assert!(machine.reset_wanted());
    assert!(machine.next_timeout().unwrap() > now + Duration::from_secs(800));
    now += Duration::from_secs(10);
    machine.handle_request(false, now);
    assert_eq!(machine.next_timeout(), Some(now));
    connect(&mut machine, &mut now);
    assert!(!machine.reset_wanted());
    // Also over a restart.
    let stored = Standing::idle(Reason::FutureCursor);
    assert!(stored_machine(stored, Past::default(), now).reset_wanted());
}

#[test]
fn a_restart_keeps_to_the_plan() {
    let now = Instant::now();
    let offline = Standing { status: HostStatus::Offline, reason: Reason::Unreachable };
    let hour = Duration::from_hours(1);
    let past = Past { failures: 60, next_attempt: Some(now + 5 * hour) };
    let mut machine = stored_machine(offline, past, now);
    assert_eq!(machine.next_timeout(), Some(now + 5 * hour));
    // It is still one of those that are tried once a day.
    let mut later = now;
    let attempt = next_dial(&mut machine, &mut later);
    machine.handle_dial_failed(attempt, later);
    assert!(machine.next_timeout().unwrap() > later + 5 * hour);
    // Overdue: soon, but not all at the same moment. A plan for years is not believed.
    let overdue = Past { failures: 60, next_attempt: Some(now) };
    let due = stored_machine(offline, overdue, now).next_timeout().unwrap();
    assert!(due > now && due < now + Duration::from_mins(2));
    let far = Past { failures: 60, next_attempt: Some(now + 1000 * hour) };
    assert_eq!(stored_machine(offline, far, now).next_timeout(), Some(now + 24 * hour));
    let quarantined = Standing { status: HostStatus::Throttled, reason: Reason::InvalidEvents };
    let mut machine = stored_machine(quarantined, past, now);
    machine.handle_request(false, now);
    assert_eq!(machine.next_timeout(), Some(now + 5 * hour));
}

#[test]
fn a_quarantine_ends_by_itself_or_by_the_operator() {
    let mut now = Instant::now();
    let mut machine = machine(now);
    let delay = Duration::from_secs(40);
    connect(&mut machine, &mut now);
    assert!(machine.handle_quarantine(Reason::InvalidEvents, delay, now));
    machine.handle_closed(&HostFault::Stopped, true, now);
    let throttled = Standing { status: HostStatus::Throttled, reason: Reason::InvalidEvents };
    assert_eq!((machine.standing(), machine.quarantined_for(now)), (throttled, Some(delay)));
    machine.handle_request(false, now);
    assert_eq!(machine.next_timeout(), Some(now + delay));
    connect(&mut machine, &mut now);
    assert_eq!((machine.standing(), machine.quarantined_for(now)), (Standing::ACTIVE, None));
    // Also a host that is gone when its deeds come to light; a dial under way is not waited for.
    machine.handle_closed(&HostFault::Closed, true, now);
    let attempt = next_dial(&mut machine, &mut now);
    assert!(!machine.handle_quarantine(Reason::ForcedLookups, delay, now));
    assert!(!machine.handle_dialed(attempt));
    assert_eq!(machine.next_timeout(), Some(now + delay));
    now += Duration::from_secs(5);
    machine.handle_request(true, now);
    assert_eq!((machine.next_timeout(), machine.quarantined_for(now)), (Some(now), None));
    // A block is a block.
    assert!(!machine.handle_block(Reason::Blocked));
    assert!(!machine.handle_quarantine(Reason::ForcedLookups, delay, now));
    assert_eq!(machine.next_timeout(), None);
}

#[test]
fn a_relay_is_left_alone_for_hours() {
    let mut now = Instant::now();
    let mut machine = machine(now);
    let attempt = next_dial(&mut machine, &mut now);
    assert!(machine.handle_dialed(attempt));
    machine.handle_closed(&HostFault::Relay, false, now);
    assert_eq!(machine.standing(), Standing::idle(Reason::Relay));
    assert!(machine.next_timeout().unwrap() > now + Duration::from_hours(5));
}

#[test]
fn a_dial_that_ends_after_a_block_comes_to_nothing() {
    let mut now = Instant::now();
    let mut machine = machine(now);
    let first = next_dial(&mut machine, &mut now);
    assert!(!machine.handle_block(Reason::Blocked));
    machine.handle_unblock(now);
    let second = next_dial(&mut machine, &mut now);
    assert!(!machine.handle_dialed(first));
    machine.handle_dial_failed(first, now);
    assert!(machine.handle_dialed(second));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Wait(u32),
    DialEnds { newest: bool, up: bool },
    Opens,
    Closes { fault: u8, progressed: bool },
    Request,
    Block,
    Unblock,
    Stop,
    Reset,
    Quarantine,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u32..4000).prop_map(Step::Wait),
        4 => (any::<bool>(), any::<bool>()).prop_map(|(newest, up)| Step::DialEnds { newest, up }),
        4 => Just(Step::Opens),
        4 => (0_u8..5, any::<bool>())
            .prop_map(|(fault, progressed)| Step::Closes { fault, progressed }),
        2 => Just(Step::Request),
        1 => Just(Step::Block),
        1 => Just(Step::Unblock),
        1 => Just(Step::Stop),
        1 => Just(Step::Reset),
        1 => Just(Step::Quarantine),
    ]
}

/// The world around one machine: what really is under way.
#[derive(Debug, Default)]
struct World {
    dials: Vec<Attempt>,
    /// A socket is with the shard; whether the shard was told to close it.
    connection: Option<bool>,
    blocked: bool,
}

impl World {
    fn told_to_drop(&mut self, drop: bool) {
        if drop {
            assert_eq!(self.connection, Some(false), "dropped what is not there");
            self.connection = Some(true);
        }
    }

    fn apply(&mut self, machine: &mut HostMachine, step: Step, now: &mut Instant) {
        match step {
            Step::Wait(seconds) => *now += Duration::from_secs(u64::from(seconds)),
            Step::DialEnds { newest, up } if !self.dials.is_empty() => {
                let at = if newest { self.dials.len() - 1 } else { 0 };
                let attempt = self.dials.remove(at);
                if up && machine.handle_dialed(attempt) {
                    assert_eq!(self.connection, None, "a second connection");
                    assert!(!self.blocked, "a connection to a blocked host");
                    self.connection = Some(false);
                } else if !up {
                    machine.handle_dial_failed(attempt, *now);
                }
            }
            Step::Opens if self.connection.is_some() => machine.handle_open(*now),
            Step::Closes { fault, progressed } if self.connection.is_some() => {
                self.connection = None;
                machine.handle_closed(&fault_of(fault), progressed, *now);
            }
            Step::Request => machine.handle_request(false, *now),
            Step::Block => {
                self.blocked = true;
                self.told_to_drop(machine.handle_block(Reason::Blocked));
            }
            Step::Unblock => {
                self.blocked = false;
                machine.handle_unblock(*now);
            }
            Step::Stop => self.told_to_drop(machine.handle_stop()),
            Step::Quarantine => {
                let delay = Duration::from_mins(5);
                let reason = Reason::InvalidEvents;
                self.told_to_drop(machine.handle_quarantine(reason, delay, *now));
            }
            Step::Reset => self.told_to_drop(machine.handle_reset(*now)),
            Step::DialEnds { .. } | Step::Opens | Step::Closes { .. } => {}
        }
    }

    fn check(&self, machine: &HostMachine, now: Instant) {
        assert_eq!(machine.standing().status == HostStatus::Banned, self.blocked);
        if self.blocked {
            assert_eq!(machine.next_timeout(), None);
        } else if self.connection.is_none() && self.dials.is_empty() {
            let due = machine.next_timeout().expect("a way back");
            assert!(due <= now + Duration::from_hours(24));
        }
        if machine.standing().status == HostStatus::Offline {
            assert!(machine.failures() >= 15);
        }
        if machine.is_open() {
            assert!(self.connection.is_some());
        }
    }
}

fn fault_of(number: u8) -> HostFault {
    match number {
        0 => HostFault::Closed,
        1 => HostFault::Relay,
        2 => HostFault::ErrorFrame(FUTURE_CURSOR.into()),
        3 => HostFault::Stopped,
        _ => HostFault::Silent,
    }
}

proptest! {
    /// Whatever happens in whatever order: one connection at most, none while blocked, always a way
    /// back.
    #[test]
    fn one_connection_none_while_blocked_always_a_way_back(
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut now = Instant::now();
        let mut machine = HostMachine::new(
            RetryConfig::default(), Standing::ACTIVE, Past::default(), seed, now,
        );
        let mut world = World::default();
        for step in steps {
            if let Some(attempt) = machine.poll_dial(now) {
                prop_assert!(!world.blocked);
                prop_assert_eq!(world.connection, None);
                world.dials.push(attempt);
            }
            world.apply(&mut machine, step, &mut now);
            world.check(&machine, now);
        }
    }

    /// Strangers' requests and the host's own doings never lead to more than an attempt in two
    /// seconds.
    #[test]
    fn attempts_are_bounded(
        seed in any::<u64>(),
        closes in prop::collection::vec((any::<bool>(), any::<bool>()), 1..100),
    ) {
        let start = Instant::now();
        let mut now = start;
        let mut machine = HostMachine::new(
            RetryConfig::default(), Standing::ACTIVE, Past::default(), seed, now,
        );
        let mut last: Option<Instant> = None;
        for (progressed, requested) in closes {
            connect(&mut machine, &mut now);
            if let Some(last) = last {
                prop_assert!(now.duration_since(last) >= Duration::from_millis(500));
                prop_assert!(!requested || now.duration_since(last) >= Duration::from_millis(500));
            }
            last = Some(now);
            machine.handle_closed(&HostFault::Closed, progressed, now);
            if requested {
                machine.handle_request(false, now);
            }
        }
    }
}
