//! [`HostWindow`]: which events of a host are in our hands, and how far its cursor is.
//!
//! The window belongs to the host, not to the connection: an event that is still being verified
//! when the connection breaks is finished all the same, and is not taken twice when it comes again.
//!
//! - The *cursor* is the highest sequence number with everything up to it refused, or in the log
//!   and synced. It is what is stored, and only moves forward.
//! - An event above the cursor that comes again is a duplicate.
//! - A host that answers a cursor with a number at or below it has begun another numbering, or goes
//!   back in its own: the window follows it, once all that is in our hands is finished. Events up to
//!   the highest number that it had reached are marked as *rewound*: they may have been taken before,
//!   which their revs tell.
//! - The *log floor* is a number of the relay below which no event above the cursor stands in the
//!   log: where a restart starts to look for events that it must not take again. It is 0 as long as
//!   that is not known better than it is stored already.

use std::collections::VecDeque;

use ports::{HostResume, HostSeq, RelaySeq};

/// Sequence numbers are below this (53 bits).
const HOST_SEQ_LIMIT: u64 = 1 << 53;

/// Numberings that tickets tell apart.
const EPOCHS: u64 = 1 << 11;

/// How much of a host may be in our hands before it is no longer read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLimits {
    /// Events received and not finished.
    pub items: usize,
    /// Bytes of events received and not yet passed to the sequencer.
    pub bytes: usize,
}

/// What becomes of a frame by its number alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Take it; the ticket comes back when it has ended.
    Ticket { ticket: u64, rewound: bool },
    /// The host has gone back in its numbering: not before the window is empty.
    Wait,
    /// It was handled before.
    Duplicate,
    /// At or below a number already seen on this connection.
    Behind,
    /// Not a number that a host may give.
    Unusable,
}

/// The events of one host that are under way. Pure: knows no clock and no socket.
#[derive(Debug)]
pub struct HostWindow {
    limits: WindowLimits,
    /// Of the numbering, not the connection: tickets of an earlier numbering mean nothing.
    epoch: u64,
    cursor: Option<HostSeq>,
    /// The highest number that was admitted or found to be a duplicate.
    newest: Option<HostSeq>,
    /// The last number on the present connection.
    last: Option<HostSeq>,
    /// What the present connection was asked to begin behind.
    asked: Option<HostSeq>,
    /// The highest number before the host went back.
    reached: Option<HostSeq>,
    /// By number, ascending.
    entries: VecDeque<Entry>,
    /// In the log since before the start, ascending; not yet seen again.
    emitted: VecDeque<HostSeq>,
    /// Entries that came out of `emitted`.
    recovered: usize,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    seq: HostSeq,
    /// The log's head when the event was admitted: its own number will be greater.
    floor: RelaySeq,
    bytes: u32,
    finished: bool,
    recovered: bool,
    /// It was thrown away unfinished: the host has to send it again.
    dropped: bool,
}

impl HostWindow {
    pub fn new(limits: WindowLimits, resume: &HostResume) -> Self {
        let mut window = Self {
            limits,
            epoch: 0,
            cursor: None,
            newest: None,
            last: None,
            asked: None,
            reached: None,
            entries: VecDeque::new(),
            emitted: VecDeque::new(),
            recovered: 0,
            bytes: 0,
        };
        window.begin(resume);
        if resume.reset {
            // How far the host had come before it began anew, and before this process did, is unknown.
            window.reached = Some(HostSeq(HOST_SEQ_LIMIT));
        }
        window
    }

    /// Tickets so far mean nothing any more.
    fn start_over(&mut self) {
        self.epoch = (self.epoch + 1) % EPOCHS;
        self.entries.clear();
        self.recovered = 0;
        self.bytes = 0;
    }

    fn begin(&mut self, resume: &HostResume) {
        self.cursor = resume.cursor;
        self.newest = resume.cursor;
        self.last = None;
        self.reached = None;
        let mut emitted = resume.emitted.clone();
        emitted.retain(|seq| resume.cursor.is_none_or(|cursor| *seq > cursor));
        emitted.sort_unstable();
        emitted.dedup();
        self.emitted = emitted.into();
    }

    /// A new connection begins. Returns the cursor to connect with: everything up to it is done or
    /// in our hands.
    pub fn connect(&mut self, resume: &HostResume) -> Option<HostSeq> {
        if resume.reset {
            let reached = self.highest();
            self.start_over();
            self.begin(resume);
            self.reached = reached;
        } else if self.newest.is_none() {
            // Nothing has come yet. By now control may name a place from which nothing may be missed:
            // a host that was open once is not taken up at its live position again.
            self.cursor = resume.cursor;
            self.newest = resume.cursor;
        }
        self.last = None;
        let dropped = self.entries.iter().find(|entry| entry.dropped);
        self.asked = dropped.map_or(self.newest, |entry| Some(HostSeq(entry.seq.0 - 1)));
        self.asked
    }

    /// Whether one more event may be read.
    pub fn has_room(&self) -> bool {
        self.entries.len() < self.limits.items && self.bytes < self.limits.bytes
    }

    /// Whether this event may be read: one that was thrown away has its place already.
    pub fn has_room_for(&self, seq: HostSeq) -> bool {
        self.has_room()
            || (self.bytes < self.limits.bytes
                && self.place_of(seq).is_ok_and(|place| self.entries[place].dropped))
    }

    /// The host goes on below its last number, on the same connection: what comes now is taken as if
    /// a new one began.
    pub fn turn_back(&mut self) {
        self.asked = self.last.max(self.asked);
        self.last = None;
    }

    /// Decides on an event by its number; a ticket is the promise to [`finish`](Self::finish) it.
    ///
    /// `head` is the newest number that the sequencer has given out.
    pub fn admit(&mut self, seq: HostSeq, bytes: usize, head: RelaySeq) -> Admission {
        if seq.0 >= HOST_SEQ_LIMIT {
            return Admission::Unusable;
        }
        if self.last.is_some_and(|last| seq <= last) {
            return Admission::Behind;
        }
        if self.last.is_none() && self.asked.is_some_and(|asked| seq <= asked) {
            if self.entries.iter().any(|entry| !entry.finished && !entry.dropped) {
                return Admission::Wait;
            }
            self.go_back_to(seq);
        }
        self.last = Some(seq);
        if self.cursor.is_some_and(|cursor| seq <= cursor) {
            return Admission::Duplicate;
        }
        let place = match self.place_of(seq) {
            Err(place) => place,
            Ok(place) => return self.admit_again(place, bytes),
        };
        self.newest = self.newest.max(Some(seq));
        let recovered = self.take_emitted(seq);
        let bytes = if recovered { 0 } else { u32::try_from(bytes).unwrap_or(u32::MAX) };
        let entry =
            Entry { seq, floor: head, bytes, finished: recovered, recovered, dropped: false };
        self.entries.insert(place, entry);
        self.bytes += bytes as usize;
        if recovered {
            self.recovered += 1;
            self.advance();
            return Admission::Duplicate;
        }
        self.admitted(seq)
    }

    fn admitted(&self, seq: HostSeq) -> Admission {
        let rewound = self.reached.is_some_and(|reached| seq <= reached);
        Admission::Ticket { ticket: self.ticket(seq), rewound }
    }

    /// A number that is in the window already.
    fn admit_again(&mut self, place: usize, bytes: usize) -> Admission {
        let entry = &mut self.entries[place];
        if !std::mem::take(&mut entry.dropped) {
            return Admission::Duplicate;
        }
        entry.bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.bytes += entry.bytes as usize;
        let seq = entry.seq;
        self.admitted(seq)
    }

    /// Follows the host back. Nothing is in our hands.
    fn go_back_to(&mut self, first: HostSeq) {
        self.start_over();
        let reached = self.highest();
        let before = HostSeq(first.0.saturating_sub(1));
        self.begin(&HostResume { cursor: Some(before), ..HostResume::default() });
        self.reached = reached;
    }

    /// The highest number so far, in whichever numbering.
    fn highest(&self) -> Option<HostSeq> {
        self.newest.max(self.emitted.back().copied()).max(self.reached)
    }

    /// An event was thrown away: its place stays, so that the cursor waits for it.
    pub fn drop_ticket(&mut self, ticket: u64) {
        self.pass(ticket);
        if let Some(index) = self.index_of(ticket) {
            self.entries[index].dropped = true;
        }
    }

    /// An event left the shards: its bytes are no longer charged to the host.
    pub fn pass(&mut self, ticket: u64) {
        if let Some(index) = self.index_of(ticket) {
            let bytes = std::mem::take(&mut self.entries[index].bytes);
            self.bytes -= bytes as usize;
        }
    }

    /// An event was refused, or is in the log and synced. Returns whether the cursor moved.
    pub fn finish(&mut self, ticket: u64) -> bool {
        self.pass(ticket);
        let Some(index) = self.index_of(ticket) else { return false };
        self.entries[index].finished = true;
        self.advance()
    }

    pub fn cursor(&self) -> Option<HostSeq> {
        self.cursor
    }

    /// See the module's documentation; `head` is the sequencer's newest number.
    pub fn log_floor(&self, head: RelaySeq) -> RelaySeq {
        if self.recovered > 0 || !self.emitted.is_empty() {
            return RelaySeq(0);
        }
        self.entries.iter().map(|entry| entry.floor).min().unwrap_or(head)
    }

    fn advance(&mut self) -> bool {
        let before = self.cursor;
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.finished) {
            self.cursor = Some(entry.seq);
            self.recovered -= usize::from(entry.recovered);
        }
        if self.cursor != before {
            // What the host never sent again is behind the cursor now and needs no memory.
            while self
                .emitted
                .pop_front_if(|seq| self.cursor.is_some_and(|at| *seq <= at))
                .is_some()
            {}
        }
        self.cursor != before
    }

    fn take_emitted(&mut self, seq: HostSeq) -> bool {
        let found = self.emitted.binary_search(&seq);
        if let Ok(index) = found {
            self.emitted.remove(index);
        }
        found.is_ok()
    }

    fn ticket(&self, seq: HostSeq) -> u64 {
        (self.epoch * HOST_SEQ_LIMIT) | seq.0
    }

    fn index_of(&self, ticket: u64) -> Option<usize> {
        let seq = HostSeq(ticket % HOST_SEQ_LIMIT);
        if ticket != self.ticket(seq) {
            return None;
        }
        self.place_of(seq).ok()
    }

    /// Events mostly come and end in order, so the ends are looked at first.
    fn place_of(&self, seq: HostSeq) -> Result<usize, usize> {
        match (self.entries.front(), self.entries.back()) {
            (Some(front), _) if front.seq == seq => Ok(0),
            (_, Some(back)) if back.seq < seq => Err(self.entries.len()),
            _ => self.entries.binary_search_by_key(&seq, |entry| entry.seq),
        }
    }
}

#[cfg(test)]
mod tests;
