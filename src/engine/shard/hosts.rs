//! The hosts of a shard: their windows, their connections, and how far we are with them.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
    time::Instant,
};

use foldhash::fast::RandomState;
use ports::{
    HostId, HostLimits, HostProgress, HostResume, HostSeq, HostSocket, RefusalReason, RelaySeq,
    ShardReport, SlowReason,
};

use super::mesh::Return;
use crate::{
    accounts::Outcome,
    upstream::{
        Admission, Admitted, FairQueue, HostLink, HostWindow, LinkTimes, Pace, RawFrame,
        WindowLimits,
    },
};

/// A host that had a connection since the start.
#[derive(Debug)]
struct Host {
    window: HostWindow,
    pace: Pace,
    /// Admitted, and above its event rates.
    paced: FairQueue,
    /// Why it is slowed down and until when, as control was told.
    slowed: Slowed,
    link: Option<Rc<HostLink>>,
    /// A newer socket, which waits until the old connection's reader is done.
    next: Option<Box<HostSocket>>,
    received: u64,
    forwarded: u64,
    refused: u64,
    /// Of the refused ones those that are the host's fault.
    invalid: u64,
    /// Something is to be reported.
    dirty: bool,
}

type Slowed = (Option<SlowReason>, Option<u64>);

impl Host {
    /// `now`: Unix microseconds.
    fn slowed(&self, now: u64) -> Slowed {
        let full = || {
            let waits = self.link.as_ref().is_some_and(|link| link.room().has_waiting());
            waits && !self.window.has_room()
        };
        match self.pace.slowed(now) {
            Some((why, until)) if !self.paced.is_empty() => (Some(why), Some(until)),
            _ if !self.paced.is_empty() || full() => (Some(SlowReason::Queue), None),
            _ => (None, None),
        }
    }

    fn count_refused(&mut self, reason: RefusalReason) {
        self.refused += 1;
        self.invalid += u64::from(reason.is_fault());
    }
}

#[derive(Debug)]
pub(super) struct Hosts {
    limits: WindowLimits,
    known: HashMap<HostId, Host, RandomState>,
    dirty: Vec<HostId>,
    /// Hosts that may be slowed down, or were when control was last told.
    slow: HashSet<HostId, RandomState>,
    /// What waits in `paced` of all hosts. Each may take a quarter of what is free: there is room for
    /// one that has none yet, however many others are slowed down.
    paced_bytes: usize,
    paced_bytes_max: usize,
    connected: usize,
}

impl Hosts {
    pub(super) fn new(limits: WindowLimits, paced_bytes_max: usize) -> Self {
        Self {
            limits,
            known: HashMap::default(),
            dirty: Vec::new(),
            slow: HashSet::default(),
            paced_bytes: 0,
            paced_bytes_max,
            connected: 0,
        }
    }

    /// How many connections there are.
    pub(super) fn connected(&self) -> usize {
        self.connected
    }

    /// A socket arrived. It is given back if its connection can start now; otherwise it waits for
    /// the end of the old one, which is being ended.
    pub(super) fn arrive(
        &mut self,
        socket: Box<HostSocket>,
        end: impl FnOnce(&HostLink),
    ) -> Option<Box<HostSocket>> {
        match self.known.get_mut(&socket.host) {
            Some(Host { link: Some(link), next, .. }) => {
                end(link);
                *next = Some(socket);
                None
            }
            _ => Some(socket),
        }
    }

    /// A connection begins. Returns the cursor to ask for.
    pub(super) fn connect(
        &mut self,
        host: HostId,
        limits: HostLimits,
        resume: &HostResume,
        link: &Rc<HostLink>,
    ) -> Option<HostSeq> {
        let window = self.limits;
        let entry = self.known.entry(host).or_insert_with(|| Host {
            window: HostWindow::new(window, resume),
            pace: Pace::new(limits),
            paced: FairQueue::default(),
            slowed: (None, None),
            link: None,
            next: None,
            received: 0,
            forwarded: 0,
            refused: 0,
            invalid: 0,
            dirty: false,
        });
        entry.pace.set_limits(limits);
        entry.link = Some(Rc::clone(link));
        self.connected += 1;
        entry.window.connect(resume)
    }

    /// A connection ended; returns the socket that waited for that.
    pub(super) fn disconnect(&mut self, host: HostId) -> Option<Box<HostSocket>> {
        let entry = self.known.get_mut(&host)?;
        entry.link.take()?;
        self.connected -= 1;
        entry.next.take()
    }

    /// The host's connection; a socket that waits to replace it is dropped, and so are the events
    /// that wait for their turn: the host has to send them again.
    pub(super) fn drop_host(&mut self, host: HostId) -> Option<Rc<HostLink>> {
        let entry = self.known.get_mut(&host)?;
        entry.next = None;
        self.paced_bytes -= entry.paced.bytes();
        for ticket in entry.paced.clear() {
            entry.window.drop_ticket(ticket);
        }
        entry.link.clone()
    }

    pub(super) fn link(&self, host: HostId) -> Option<&Rc<HostLink>> {
        self.known.get(&host)?.link.as_ref()
    }

    pub(super) fn links(&self) -> impl Iterator<Item = &Rc<HostLink>> {
        self.known.values().filter_map(|host| host.link.as_ref())
    }

    pub(super) fn tick(&self, now: Instant, times: &LinkTimes) {
        for link in self.links() {
            link.tick(now, times);
        }
    }

    pub(super) fn admit(
        &mut self,
        id: HostId,
        seq: HostSeq,
        bytes: usize,
        head: RelaySeq,
    ) -> Admitted {
        let Some(host) = self.known.get_mut(&id) else {
            return Admitted::Refused(RefusalReason::Duplicate);
        };
        let free = self.paced_bytes_max.saturating_sub(self.paced_bytes);
        let crowded = !host.paced.is_empty() && host.paced.bytes() > free / 4;
        if crowded || !host.window.has_room_for(seq) {
            self.slow.insert(id);
            return Admitted::Full;
        }
        let before = host.window.cursor();
        let admission = host.window.admit(seq, bytes, head);
        match admission {
            Admission::Wait => return Admitted::Full,
            Admission::Behind => return Admitted::Behind,
            _ => {}
        }
        host.received += 1;
        // Also when stepping over an event that is in the log already moves the cursor.
        if admission != Admission::Unusable || host.window.cursor() != before {
            mark(&mut self.dirty, id, host);
        }
        match admission {
            Admission::Ticket { ticket, rewound } => Admitted::Ticket { ticket, rewound },
            Admission::Wait => Admitted::Full,
            Admission::Behind => Admitted::Behind,
            Admission::Duplicate => Admitted::Refused(RefusalReason::Duplicate),
            Admission::Unusable => Admitted::Refused(RefusalReason::SeqOrder),
        }
    }

    pub(super) fn turn_back(&mut self, id: HostId) {
        if let Some(host) = self.known.get_mut(&id) {
            host.window.turn_back();
        }
    }

    pub(super) fn set_limits(&mut self, id: HostId, limits: HostLimits) {
        if let Some(host) = self.known.get_mut(&id) {
            host.pace.set_limits(limits);
        }
    }

    /// Gives an admitted frame back if it may go on at once. `now`: Unix microseconds.
    pub(super) fn pace(&mut self, frame: RawFrame, now: u64) -> Option<RawFrame> {
        let Some(host) = self.known.get_mut(&frame.host()) else { return Some(frame) };
        if host.paced.is_empty() && host.pace.take(now) {
            return Some(frame);
        }
        self.slow.insert(frame.host());
        self.paced_bytes -= host.paced.bytes();
        host.paced.push(frame);
        self.paced_bytes += host.paced.bytes();
        None
    }

    /// Hands on what may go on by now, as far as there is room.
    pub(super) fn release(
        &mut self,
        now: u64,
        mut push: impl FnMut(RawFrame) -> Result<(), RawFrame>,
    ) {
        for id in &self.slow {
            let Some(host) = self.known.get_mut(id) else { continue };
            let before = host.paced.bytes();
            while !host.paced.is_empty() && host.pace.take(now) {
                let Some(frame) = host.paced.pop() else { break };
                if let Err(frame) = push(frame) {
                    host.paced.unpop(frame);
                    host.pace.give_back();
                    break;
                }
            }
            let freed = before - host.paced.bytes();
            self.paced_bytes -= freed;
            if let Some(link) = host.link.as_ref().filter(|_| freed > 0) {
                link.room().notify();
            }
        }
    }

    /// Which hosts are slowed down since the last time, or no longer.
    pub(super) fn take_slowed(&mut self, now: u64) -> Vec<ShardReport> {
        let mut reports = Vec::new();
        let known = &mut self.known;
        self.slow.retain(|id| {
            let Some(host) = known.get_mut(id) else { return false };
            let slowed = host.slowed(now);
            if std::mem::replace(&mut host.slowed, slowed) != slowed {
                let (why, until) = slowed;
                reports.push(ShardReport::HostSlowed { host: *id, why, until });
            }
            slowed.0.is_some()
        });
        reports
    }

    /// Counts a frame that was refused on its way in. `numbered`: it was counted as received.
    pub(super) fn refuse(&mut self, id: HostId, numbered: bool, reason: RefusalReason) {
        if let Some(host) = self.known.get_mut(&id) {
            host.received += u64::from(!numbered);
            host.count_refused(reason);
            mark(&mut self.dirty, id, host);
        }
    }

    /// A ticket came home.
    pub(super) fn settle(&mut self, item: Return) {
        let id = match item {
            Return::Passed { host, .. } => host,
            Return::Finished(finished) => finished.host,
        };
        let Some(host) = self.known.get_mut(&id) else { return };
        match item {
            Return::Passed { ticket, .. } => host.window.pass(ticket),
            Return::Finished(finished) => {
                match finished.outcome {
                    Outcome::Forwarded => host.forwarded += 1,
                    Outcome::Refused(reason) => host.count_refused(reason),
                }
                host.window.finish(finished.ticket);
                mark(&mut self.dirty, id, host);
            }
        }
        if let Some(link) = &host.link
            && link.room().has_waiting()
            && host.window.has_room()
        {
            link.room().notify();
        }
    }

    /// What is to be reported since the last time.
    pub(super) fn take_progress(&mut self, head: RelaySeq) -> Vec<HostProgress> {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable();
        dirty
            .into_iter()
            .filter_map(|id| {
                let host = self.known.get_mut(&id)?;
                host.dirty = false;
                Some(HostProgress {
                    cursor: host.window.cursor(),
                    log_floor: host.window.log_floor(head),
                    received: std::mem::take(&mut host.received),
                    forwarded: std::mem::take(&mut host.forwarded),
                    refused: std::mem::take(&mut host.refused),
                    invalid: std::mem::take(&mut host.invalid),
                    ..HostProgress::new(id)
                })
            })
            .collect()
    }
}

fn mark(dirty: &mut Vec<HostId>, id: HostId, host: &mut Host) {
    if !std::mem::replace(&mut host.dirty, true) {
        dirty.push(id);
    }
}
