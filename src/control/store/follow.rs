//! Keeps the account rows in step with the event log.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use ports::{HostId, HostSeq, LogRecord, LogTail, RelaySeq};

use super::{
    Database, Recovery, StoreError,
    fold::Fold,
    sql::{Durability, Row, Sql, Type, Value, values},
};

/// Records folded into one transaction at most.
const BATCH: usize = 8192;
/// The least, however slow the database is.
const SLICE_MIN: usize = 512;
/// While the relay runs, a transaction is to take about so long: those who ask wait meanwhile.
const SLICE_TIME: Duration = Duration::from_millis(40);

/// So long, and twice as long at most, the log keeps events for the sake of hosts whose cursors are not
/// stored yet: a host that is gone for good must not fill the disk.
const HOLD_TIME: Duration = Duration::from_mins(5);

/// How far the relay is with a host, as stored.
#[derive(Clone, Copy)]
struct HostPlace {
    cursor: Option<HostSeq>,
    /// No event above the cursor stands in the log at or below this number.
    floor: RelaySeq,
}

/// The store's place in the log, and the events above their hosts' cursors.
pub(super) struct Follower {
    pub(super) tail: Box<dyn LogTail>,
    /// The account rows are as of this event.
    log_seq: RelaySeq,
    /// For each host its events in the log that its stored cursor does not cover yet.
    emitted: HashMap<HostId, BTreeMap<HostSeq, RelaySeq>>,
    records: Vec<LogRecord>,
    /// Records of the next transaction while the relay runs.
    slice: usize,
    behind: bool,
    started: bool,
    /// The log need not hold records up to this one for us.
    released: RelaySeq,
    hold: Hold,
}

/// Where the rows were some time ago.
struct Hold {
    /// At `since`, and so much earlier.
    seqs: [RelaySeq; 2],
    since: Instant,
}

impl Hold {
    /// Events up to this one have been held for long enough, where the rows are as of `log_seq`.
    fn over(&mut self, log_seq: RelaySeq) -> RelaySeq {
        if self.since.elapsed() >= HOLD_TIME {
            *self = Self { seqs: [log_seq, self.seqs[0]], since: Instant::now() };
        }
        self.seqs[1]
    }
}

impl Follower {
    /// A cursor has been stored: the events up to it need not be looked for after a restart, nor
    /// those of a numbering that the host has given up.
    pub(super) fn handle_cursor(&mut self, host: HostId, cursor: HostSeq, floor: RelaySeq) {
        if let Some(events) = self.emitted.get_mut(&host) {
            *events = events.split_off(&HostSeq(cursor.0 + 1));
            if floor.0 > 0 {
                events.retain(|_, seq| *seq > floor);
            }
            if events.is_empty() {
                self.emitted.remove(&host);
            }
        }
    }

    /// The database says how far its account rows are: less far, if it has forgotten its last
    /// transactions or was put back from a backup.
    pub(super) fn handle_reload(&mut self, log_seq: RelaySeq) {
        if self.started && log_seq != self.log_seq {
            tracing::info!(
                known = self.log_seq.0,
                database = log_seq.0,
                "the account rows are read again from the event log"
            );
            self.log_seq = log_seq.min(self.tail.bounds().newest);
        }
    }

    /// So many records took so long.
    fn pace(&mut self, records: usize, took: Duration) {
        let in_time = records as f64 * SLICE_TIME.as_secs_f64() / took.as_secs_f64().max(1e-6);
        // A transaction that stalled once, or was quick once, changes it by so much at most.
        let (least, most) = (self.slice / 2, self.slice * 2);
        self.slice = (in_time as usize).clamp(least, most).clamp(SLICE_MIN, BATCH);
    }

    fn note_emitted(&mut self, record: &LogRecord, places: &HashMap<HostId, HostPlace>) {
        // A host without a row was lost with an older database: it will be another one's number, or
        // nobody's.
        let Some(place) = places.get(&record.host) else { return };
        let above = place.cursor.is_none_or(|cursor| record.host_seq > cursor);
        if above && record.seq > place.floor {
            self.emitted.entry(record.host).or_default().insert(record.host_seq, record.seq);
        }
    }

    /// Reads the part of the log which the account rows have already, for events that the hosts'
    /// stored cursors do not cover.
    fn scan_emitted(
        &mut self,
        floor: RelaySeq,
        places: &HashMap<HostId, HostPlace>,
    ) -> Result<(), StoreError> {
        let (mut at, end) = (floor, self.log_seq);
        while at < end {
            let mut records = std::mem::take(&mut self.records);
            records.clear();
            self.tail.read_after(at, BATCH, &mut records)?;
            let Some(last) = records.last() else { break };
            at = last.seq;
            for record in records.iter().filter(|record| record.seq <= end) {
                self.note_emitted(record, places);
            }
            self.records = records;
        }
        Ok(())
    }

    /// The greatest number at or below which no event above its host's cursor stands.
    fn floor(&self) -> RelaySeq {
        let oldest = self.emitted.values().flat_map(BTreeMap::values).min();
        oldest.map_or(self.log_seq, |seq| RelaySeq(seq.0 - 1).min(self.log_seq))
    }

    /// Records up to this one are needed no more once all that was stored is on disk.
    fn releasable(&mut self) -> Option<RelaySeq> {
        let through = self.floor().max(self.hold.over(self.log_seq));
        (self.started && through > self.released).then_some(through)
    }

    /// All that was stored is on disk: the log need hold only what is behind that.
    pub(super) fn handle_stored(&mut self) {
        if let Some(through) = self.releasable() {
            self.released = through;
            self.tail.release(through);
        }
    }
}

impl Database {
    pub(super) fn log_seq(&mut self) -> Result<RelaySeq, StoreError> {
        match &self.follower {
            Some(follower) if follower.started => Ok(follower.log_seq),
            _ => Ok(RelaySeq(self.meta("log_seq")?)),
        }
    }

    /// Whether the last batch was full, so that there is more to read at once.
    pub(super) fn behind(&self) -> bool {
        self.follower.as_ref().is_some_and(|follower| follower.behind)
    }

    /// The newest event that the log can be followed to.
    pub(super) fn synced(&self) -> RelaySeq {
        let follower = self.follower.as_ref().filter(|follower| follower.started);
        follower.map_or(RelaySeq(0), |follower| follower.tail.bounds().synced)
    }

    /// Where [`Self::start_following`] is to read.
    pub(super) fn set_tail(&mut self, tail: Box<dyn LogTail>) {
        self.follower = Some(Follower {
            tail,
            log_seq: RelaySeq(0),
            emitted: HashMap::new(),
            records: Vec::new(),
            slice: SLICE_MIN,
            behind: false,
            started: false,
            released: RelaySeq(0),
            hold: Hold { seqs: [RelaySeq(0); 2], since: Instant::now() },
        });
    }

    /// May be called again after it has failed.
    pub(super) fn start_following(&mut self) -> Result<Recovery, StoreError> {
        self.refresh()?;
        let (mut log_seq, mut floor) =
            (RelaySeq(self.meta("log_seq")?), RelaySeq(self.meta("emitted_floor")?));
        let places = self.host_places()?;
        let follower = self.follower.as_mut().ok_or(StoreError::Closed)?;
        let newest = follower.tail.bounds().newest;
        if newest < log_seq {
            tracing::warn!(
                database = log_seq.0,
                log = newest.0,
                "the event log ends before the database does: it was removed or replaced. \
                 Account rows stay as they are"
            );
            log_seq = newest;
            floor = floor.min(newest);
        }
        follower.log_seq = log_seq;
        follower.scan_emitted(floor, &places)?;
        follower.started = true;
        let records = self.follow_to_end()?;
        self.place_new_hosts()?;
        self.release()?;
        let follower = self.follower.as_ref().ok_or(StoreError::Closed)?;
        let emitted = follower
            .emitted
            .iter()
            .map(|(host, events)| (*host, events.keys().copied().collect()))
            .collect();
        Ok(Recovery { emitted, records })
    }

    /// Gives a cursor to hosts that were new when the process was killed: events of theirs are in the
    /// log, but no cursor had been stored. Without one they would be taken up at their live position,
    /// and what they sent meanwhile would be lost.
    fn place_new_hosts(&mut self) -> Result<(), StoreError> {
        let Some(follower) = &self.follower else { return Ok(()) };
        let rows: Vec<Vec<Value>> = follower
            .emitted
            .iter()
            .filter_map(|(host, events)| Some((host, events.first_key_value()?.0)))
            .map(|(host, first)| values![host.0, first.0.saturating_sub(1)].into())
            .collect();
        self.sql.transaction(Durability::Disk, |sql| {
            sql.execute_rows(
                "UPDATE host SET last_seq = r.cursor FROM {rows}
                 WHERE host.id = r.host AND host.last_seq IS NULL",
                &[("host", Type::Int), ("cursor", Type::Int)],
                &rows,
            )
        })?;
        Ok(())
    }

    fn host_places(&mut self) -> Result<HashMap<HostId, HostPlace>, StoreError> {
        let rows = self.sql.query("SELECT id, last_seq, log_floor FROM host", &[])?;
        rows.iter().map(host_place).collect()
    }

    /// Follows until nothing new is there; returns how many records were read.
    pub(super) fn follow_to_end(&mut self) -> Result<u64, StoreError> {
        let mut total = 0;
        loop {
            let count = self.follow_batch(BATCH)?;
            total += count as u64;
            if count == 0 {
                return Ok(total);
            }
        }
    }

    /// Follows for a moment, so that others can be served in between.
    pub(super) fn follow_slice(&mut self) -> Result<(), StoreError> {
        let size = self.follower.as_ref().map_or(0, |follower| follower.slice);
        let began = Instant::now();
        let count = self.follow_batch(size)?;
        if let Some(follower) = self.follower.as_mut().filter(|_| count == size && size > 0) {
            follower.pace(count, began.elapsed());
        }
        if count == 0 { self.release() } else { Ok(()) }
    }

    /// Has the place in the log on disk, and with it all that was stored before, so that the log need
    /// not hold it any more.
    fn release(&mut self) -> Result<(), StoreError> {
        let Some(follower) = &mut self.follower else { return Ok(()) };
        if follower.releasable().is_none() {
            return Ok(());
        }
        let marks = marks(follower);
        self.sql.transaction(Durability::Disk, |sql| store_marks(sql, &marks))?;
        if let Some(follower) = &mut self.follower {
            follower.handle_stored();
        }
        Ok(())
    }

    /// Folds one batch of records into the account rows, in one transaction with the place in the
    /// log; also writes the identities held back. Returns how many records were read.
    fn follow_batch(&mut self, size: usize) -> Result<usize, StoreError> {
        self.refresh()?;
        self.flush_identities()?;
        let Some(mut follower) = self.follower.take_if(|follower| follower.started) else {
            return Ok(0);
        };
        let result = self.follow_batch_with(&mut follower, size);
        self.follower = Some(follower);
        result
    }

    fn follow_batch_with(
        &mut self,
        follower: &mut Follower,
        size: usize,
    ) -> Result<usize, StoreError> {
        let mut records = std::mem::take(&mut follower.records);
        records.clear();
        let synced = follower.tail.bounds().synced;
        follower.tail.read_after(follower.log_seq, size, &mut records)?;
        let Some(last) = records.last().map(|record| record.seq) else {
            follower.behind = false;
            // Numbers that no event has, left out after an unclean stop, need not be waited for.
            follower.log_seq = follower.log_seq.max(synced);
            follower.records = records;
            return Ok(0);
        };
        warn_of_gap(follower, &records);
        let places = self.host_places_of(&records)?;
        let before = follower.log_seq;
        follower.log_seq = last;
        for record in &records {
            follower.note_emitted(record, &places);
        }
        let marks = marks(follower);
        let done = self.store_batch(follower.tail.as_mut(), &records, &marks);
        if let Err(error) = done {
            follower.log_seq = before;
            return Err(error);
        }
        follower.behind = records.len() == size;
        let count = records.len();
        follower.records = records;
        let newest = follower.tail.bounds().newest;
        metrics::gauge!("relayered_store_lag_events").set(newest.0.saturating_sub(last.0) as f64);
        Ok(count)
    }

    fn store_batch(
        &mut self,
        tail: &mut dyn LogTail,
        records: &[LogRecord],
        marks: &Marks,
    ) -> Result<(), StoreError> {
        let mut fold = Fold::new(records);
        self.resolve(&mut fold, tail)?;
        self.sql.transaction(Durability::Log, |sql| {
            fold.store(sql)?;
            store_marks(sql, marks)
        })?;
        Ok(())
    }

    fn host_places_of(
        &mut self,
        records: &[LogRecord],
    ) -> Result<HashMap<HostId, HostPlace>, StoreError> {
        let mut hosts: Vec<u32> = records.iter().map(|record| record.host.0).collect();
        hosts.sort_unstable();
        hosts.dedup();
        let rows: Vec<Vec<Value>> = hosts.into_iter().map(|host| values![host].into()).collect();
        let found = self.sql.query_rows(
            "SELECT h.id, h.last_seq, h.log_floor FROM {rows} JOIN host AS h ON h.id = r.host",
            &[("host", Type::Int)],
            &rows,
        )?;
        found.iter().map(host_place).collect()
    }
}

fn host_place(row: &Row) -> Result<(HostId, HostPlace), StoreError> {
    let place =
        HostPlace { cursor: row.get::<Option<u64>>(1)?.map(HostSeq), floor: RelaySeq(row.get(2)?) };
    Ok((HostId(row.get(0)?), place))
}

type Marks = [(&'static str, RelaySeq); 2];

/// The follower's place, as it is stored.
fn marks(follower: &Follower) -> Marks {
    [("log_seq", follower.log_seq), ("emitted_floor", follower.floor())]
}

fn store_marks(sql: &mut Sql, marks: &Marks) -> Result<(), StoreError> {
    let rows: Vec<Vec<Value>> =
        marks.iter().map(|(name, seq)| values![*name, seq.0].into()).collect();
    sql.execute_rows(
        "UPDATE meta SET value = r.value FROM {rows} WHERE meta.name = r.name",
        &[("name", Type::Text), ("value", Type::Int)],
        &rows,
    )?;
    Ok(())
}

/// The log holds what the rows do not have, but a database that is put back from an old backup may be
/// further behind.
fn warn_of_gap(follower: &Follower, records: &[LogRecord]) {
    let Some(oldest) = follower.tail.bounds().oldest else { return };
    let behind = follower.log_seq.0 > 0 && oldest.0 > follower.log_seq.0 + 1;
    if behind && records.first().is_some_and(|first| first.seq >= oldest) {
        tracing::warn!(
            database = follower.log_seq.0,
            oldest = oldest.0,
            "events left the log before the database knew of them: accounts without later events \
             keep their old state"
        );
    }
}
