//! The hosts of a shard: their windows, their connections, and how far we are with them.

use std::{collections::HashMap, rc::Rc, time::Instant};

use foldhash::fast::RandomState;
use ports::{HostId, HostProgress, HostResume, HostSeq, HostSocket, RefusalReason, RelaySeq};

use super::mesh::Return;
use crate::{
    accounts::Outcome,
    upstream::{Admission, Admitted, HostLink, HostWindow, LinkTimes, WindowLimits},
};

/// A host that had a connection since the start.
#[derive(Debug)]
struct Host {
    window: HostWindow,
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

impl Host {
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
    connected: usize,
}

impl Hosts {
    pub(super) fn new(limits: WindowLimits) -> Self {
        Self { limits, known: HashMap::default(), dirty: Vec::new(), connected: 0 }
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
        resume: &HostResume,
        link: &Rc<HostLink>,
    ) -> Option<HostSeq> {
        let limits = self.limits;
        let entry = self.known.entry(host).or_insert_with(|| Host {
            window: HostWindow::new(limits, resume),
            link: None,
            next: None,
            received: 0,
            forwarded: 0,
            refused: 0,
            invalid: 0,
            dirty: false,
        });
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

    /// The host's connection; a socket that waits to replace it is dropped.
    pub(super) fn drop_host(&mut self, host: HostId) -> Option<Rc<HostLink>> {
        let entry = self.known.get_mut(&host)?;
        entry.next = None;
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
        if !host.window.has_room() {
            return Admitted::Full;
        }
        let before = host.window.cursor();
        let admission = host.window.admit(seq, bytes, head);
        host.received += 1;
        // Also when stepping over an event that is in the log already moves the cursor.
        if admission != Admission::OutOfOrder || host.window.cursor() != before {
            mark(&mut self.dirty, id, host);
        }
        match admission {
            Admission::Ticket(ticket) => Admitted::Ticket(ticket),
            Admission::Duplicate => Admitted::Refused(RefusalReason::Duplicate),
            Admission::OutOfOrder => Admitted::Refused(RefusalReason::SeqOrder),
        }
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
