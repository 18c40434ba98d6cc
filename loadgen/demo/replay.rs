//! Consumers that read the log from its start, a thread each: alone, for the relay's speed, and beside
//! live traffic, at all speeds.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use protocol::frame::{self, Skim};

use super::Stage;
use super::phase::process_cpu;
use crate::consume::{is_timeout, shake_hands};
use crate::wire::{self, Message, MessageReader, Peer};

/// Longest wait for bytes before a reader looks whether it is to stop.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Bytes a second; two as fast as they can, one slower than most networks write.
const SPEEDS: [Option<u64>; 8] = [
    None,
    Some(100_000_000),
    Some(30_000_000),
    Some(15_000_000),
    None,
    Some(8_000_000),
    Some(5_000_000),
    Some(1_000_000),
];

/// How the readers read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// At full speed, to the event that is the newest when they begin; once.
    Once,
    /// At full speed, and from the start again when they have come to the newest event.
    Again,
    /// Each at its own speed, and live when they have come to the newest event.
    Mixed,
}

/// What all readers of a group have done.
#[derive(Debug, Default)]
struct Report {
    events: AtomicU64,
    bytes: AtomicU64,
    /// How often one had everything that there was.
    caught_up: AtomicU64,
    stop: AtomicBool,
    /// The relay's newest event, as the witness knows it.
    newest: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Readers {
    report: Arc<Report>,
    began: Instant,
    cpu_before: Option<u64>,
    threads: Vec<JoinHandle<io::Result<Reader>>>,
}

/// The figures of a group of readers.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Replayed {
    pub(super) readers: usize,
    pub(super) events: u64,
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    /// How often a reader came to the newest event.
    pub(super) caught_up: u64,
    pub(super) relay_micros_per_event: Option<f64>,
    /// Readers that lost their connection, or got a wrong number.
    pub(super) failed: usize,
    /// For each speed (bytes a second; none: as fast as it can), how far behind the newest event its
    /// readers were at the end.
    pub(super) behind: Vec<(Option<u64>, u64)>,
}

impl Readers {
    pub(super) fn start(stage: &Stage<'_>, count: u32, manner: Manner) -> io::Result<Self> {
        let newest = stage.witness.last_seq.load(Ordering::Relaxed);
        let report = Arc::new(Report { newest: newest.into(), ..Report::default() });
        let cpu_before = process_cpu(stage.relay.pid);
        let threads = (0..count as usize).map(|index| {
            let reader = Reader {
                api: stage.relay.api,
                manner,
                speed: if manner == Manner::Mixed { SPEEDS[index % SPEEDS.len()] } else { None },
                report: Arc::clone(&report),
                seq: 0,
            };
            thread::Builder::new().name(format!("lg-reader-{index}")).spawn(move || reader.run())
        });
        let threads = threads.collect::<io::Result<Vec<_>>>()?;
        Ok(Self { report, began: Instant::now(), cpu_before, threads })
    }

    pub(super) fn note_newest(&self, seq: u64) {
        self.report.newest.store(seq, Ordering::Relaxed);
    }

    pub(super) fn are_done(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Ends them and gives their figures.
    pub(super) fn finish(self, stage: &Stage<'_>) -> Replayed {
        let seconds = self.began.elapsed().as_secs_f64();
        let events = self.report.events.load(Ordering::Relaxed);
        let used = process_cpu(stage.relay.pid)
            .zip(self.cpu_before)
            .map(|(after, before)| after.saturating_sub(before));
        self.report.stop.store(true, Ordering::Relaxed);
        let newest = self.report.newest.load(Ordering::Relaxed);
        let readers = self.threads.len();
        let (mut failed, mut behind) = (0, Vec::new());
        for thread in self.threads {
            match thread.join() {
                Ok(Ok(reader)) => behind.push((reader.speed, newest.saturating_sub(reader.seq))),
                Ok(Err(error)) => {
                    tracing::error!("a reader of the log: {error}");
                    failed += 1;
                }
                Err(_) => failed += 1,
            }
        }
        behind.sort_unstable();
        Replayed {
            readers,
            events,
            bytes: self.report.bytes.load(Ordering::Relaxed),
            seconds,
            caught_up: self.report.caught_up.load(Ordering::Relaxed),
            relay_micros_per_event: used.map(|nanos| nanos as f64 / 1e3 / events.max(1) as f64),
            failed,
            behind,
        }
    }
}

#[derive(Debug)]
struct Reader {
    api: SocketAddr,
    manner: Manner,
    speed: Option<u64>,
    report: Arc<Report>,
    /// The number of the last event.
    seq: u64,
}

impl Reader {
    fn run(mut self) -> io::Result<Self> {
        while self.read_log()? && self.manner == Manner::Again {
            self.seq = 0;
        }
        Ok(self)
    }

    /// Reads from the start; true once it is to be read again.
    fn read_log(&mut self) -> io::Result<bool> {
        let url = format!("ws://{}/xrpc/com.atproto.sync.subscribeRepos?cursor=0", self.api);
        let mut stream = TcpStream::connect(self.api)?;
        stream.set_read_timeout(Some(LOOK_INTERVAL))?;
        let mut reader = shake_hands(&mut stream, &url)?;
        let (began, mut bytes, mut live) = (Instant::now(), 0_u64, false);
        while !self.report.stop.load(Ordering::Relaxed) {
            self.take(&mut reader, &mut stream)?;
            if !live && self.seq >= self.report.newest.load(Ordering::Relaxed) {
                live = true;
                self.report.caught_up.fetch_add(1, Ordering::Relaxed);
                if self.manner != Manner::Mixed {
                    return Ok(true);
                }
            }
            match stream.read(reader.space()) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    reader.filled(read);
                    bytes += read as u64;
                    self.pace(began, bytes);
                }
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Waits until so many bytes are due.
    fn pace(&self, began: Instant, bytes: u64) {
        let Some(speed) = self.speed else { return };
        let due = Duration::from_secs_f64(bytes as f64 / speed as f64);
        let ahead = due.saturating_sub(began.elapsed());
        if !ahead.is_zero() {
            thread::park_timeout(ahead.min(LOOK_INTERVAL));
        }
    }

    /// Takes the messages that were read: every number is the one before plus one.
    fn take(&mut self, reader: &mut MessageReader, stream: &mut TcpStream) -> io::Result<()> {
        let (mut events, mut bytes) = (0, 0);
        while let Some(message) = reader.poll_message().map_err(io::Error::other)? {
            match message {
                Message::Binary(message) => {
                    let Ok(Skim::Event { seq, .. }) = frame::skim(message) else {
                        return Err(io::Error::other("a frame that is no event"));
                    };
                    if seq != self.seq + 1 && self.seq > 0 {
                        return Err(io::Error::other(format!("{seq} came behind {}", self.seq)));
                    }
                    self.seq = seq;
                    events += 1;
                    bytes += message.len() as u64;
                }
                Message::Ping(payload) => {
                    stream.write_all(&wire::control_frame(wire::OP_PONG, payload, Peer::Client))?;
                }
                Message::Close(code, _) => {
                    return Err(io::Error::other(format!("closed with {code}")));
                }
                Message::Pong | Message::Text(_) => {}
            }
        }
        self.report.events.fetch_add(events, Ordering::Relaxed);
        self.report.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

/// Reads the whole log with so many readers, while nothing else goes on.
pub(super) fn alone(stage: &Stage<'_>, count: u32) -> io::Result<Replayed> {
    let readers = Readers::start(stage, count, Manner::Once)?;
    // Whether they get on is for the whole run to judge: a reader that does not ends the wait late.
    let patience = stage.options.patience * 3;
    super::wait_until(patience, || readers.are_done());
    Ok(readers.finish(stage))
}
