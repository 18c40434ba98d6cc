//! `loadgen consume`: prints or counts the events of a stream, and checks them.

mod check;

use std::collections::BTreeMap;
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use protocol::frame::{self, Body, Event, Skim};
use serde_json::{Value, json};

pub use check::{Checker, Violation};

use crate::client;
use crate::wire::{self, ClientHandshake, Message, MessageReader, Peer};

const STREAM_PATH: &str = "/xrpc/com.atproto.sync.subscribeRepos";
const BUFFER_BYTES: usize = 256 * 1024;
/// Longest wait for bytes before the limits are looked at again.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// One line for each event.
    Text,
    /// One JSON object for each event.
    Json,
    /// A line with the numbers each second.
    Count,
}

#[derive(Clone, Debug)]
pub struct ConsumeOptions {
    /// `ws://host:port`, with or without the path.
    pub url: String,
    pub cursor: Option<u64>,
    pub output: Output,
    pub check: bool,
    /// Where DID documents are fetched, for the signatures.
    pub plc: Option<String>,
    /// Ends after so many events.
    pub events_max: Option<u64>,
    pub time_max: Option<Duration>,
}

#[derive(Debug, Default)]
struct Tally {
    events: u64,
    bytes: u64,
    kinds: BTreeMap<&'static str, u64>,
    violations: u64,
}

/// Consumes until the stream ends or a limit is reached. Gives the number of violations.
pub fn consume(options: &ConsumeOptions) -> io::Result<u64> {
    let mut url = options.url.clone();
    let (authority, path) = client::split_url(&options.url)?;
    if path.trim_end_matches('/').is_empty() {
        url = format!("ws://{authority}{STREAM_PATH}");
    }
    if let Some(cursor) = options.cursor {
        url = format!("{url}{}cursor={cursor}", if url.contains('?') { '&' } else { '?' });
    }
    let url = url.replacen("http://", "ws://", 1);
    let mut stream = TcpStream::connect(client::resolve(authority)?)?;
    stream.set_read_timeout(Some(LOOK_INTERVAL))?;
    let reader = shake_hands(&mut stream, &url)?;
    Consumer {
        options,
        stream,
        reader,
        checker: options.check.then(|| Checker::new(options.plc.clone())),
        tally: Tally::default(),
        out: BufWriter::new(io::stdout()),
        started: Instant::now(),
    }
    .run()
}

pub(crate) fn shake_hands(stream: &mut TcpStream, url: &str) -> io::Result<MessageReader> {
    let handshake = ClientHandshake::new(url).map_err(io::Error::other)?;
    stream.write_all(&handshake.request)?;
    let mut head = Vec::new();
    loop {
        if let Some(head_len) = handshake.check(&head).map_err(io::Error::other)? {
            let mut reader = MessageReader::new(Peer::Server, BUFFER_BYTES);
            reader.push(&head[head_len..]);
            return Ok(reader);
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => head.extend_from_slice(&buffer[..read]),
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

struct Consumer<'a> {
    options: &'a ConsumeOptions,
    stream: TcpStream,
    reader: MessageReader,
    checker: Option<Checker>,
    tally: Tally,
    out: BufWriter<io::Stdout>,
    started: Instant,
}

impl Consumer<'_> {
    fn run(mut self) -> io::Result<u64> {
        let mut told = Instant::now();
        loop {
            let ended = self.handle_messages()?;
            if self.options.output == Output::Count && told.elapsed() >= Duration::from_secs(1) {
                told = Instant::now();
                self.tell_counts()?;
            }
            self.out.flush()?;
            if ended || self.options.time_max.is_some_and(|max| self.started.elapsed() >= max) {
                break;
            }
            match self.stream.read(self.reader.space()) {
                Ok(0) => {
                    eprintln!("the connection is closed");
                    break;
                }
                Ok(read) => self.reader.filled(read),
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
        self.tell_counts()?;
        self.out.flush()?;
        Ok(self.tally.violations)
    }

    /// Handles what has been read. True: that's the end.
    fn handle_messages(&mut self) -> io::Result<bool> {
        let events_max = self.options.events_max.unwrap_or(u64::MAX);
        while self.tally.events < events_max {
            let Some(message) = self.reader.poll_message().map_err(io::Error::other)? else {
                return Ok(false);
            };
            match message {
                Message::Binary(frame) => {
                    let Self { options, checker, tally, out, .. } = self;
                    handle_frame(frame, options.output, checker.as_mut(), tally, out)?;
                }
                Message::Ping(payload) => {
                    let pong = wire::control_frame(wire::OP_PONG, payload, Peer::Client);
                    self.stream.write_all(&pong)?;
                }
                Message::Pong => {}
                Message::Text(_) => {
                    self.tally.violations += 1;
                    tracing::error!("text message");
                }
                Message::Close(code, reason) => {
                    eprintln!("closed with {code}: {}", String::from_utf8_lossy(reason));
                    return Ok(true);
                }
            }
        }
        Ok(true)
    }

    fn tell_counts(&mut self) -> io::Result<()> {
        if self.options.output != Output::Count && !self.options.check {
            return Ok(());
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let unchecked = self.checker.as_ref().map_or(0, |checker| checker.unresolved);
        let summary = json!({
            "seconds": (seconds * 1000.0).round() / 1000.0,
            "events": self.tally.events,
            "bytes": self.tally.bytes,
            "kinds": self.tally.kinds,
            "violations": self.tally.violations,
            "withoutIdentity": unchecked,
        });
        writeln!(self.out, "{summary}")
    }
}

fn handle_frame(
    bytes: &[u8],
    output: Output,
    checker: Option<&mut Checker>,
    tally: &mut Tally,
    out: &mut impl Write,
) -> io::Result<()> {
    tally.events += 1;
    tally.bytes += bytes.len() as u64;
    let event = match frame::parse(bytes) {
        Ok(event) => event,
        Err(error) => return handle_other(bytes, &error.to_string(), tally, out),
    };
    *tally.kinds.entry(kind(&event)).or_default() += 1;
    if let Some(checker) = checker {
        for violation in checker.check(&event, bytes) {
            tally.violations += 1;
            tracing::error!("seq {} of {}: {violation}", event.seq, event.did);
        }
    }
    match output {
        Output::Text => write_text(&event, bytes.len(), out),
        Output::Json => writeln!(out, "{}", to_json(&event, bytes.len())),
        Output::Count => Ok(()),
    }
}

/// A frame that is no event: an info or error frame, or a malformed one.
fn handle_other(
    bytes: &[u8],
    problem: &str,
    tally: &mut Tally,
    out: &mut impl Write,
) -> io::Result<()> {
    match frame::skim(bytes) {
        Ok(Skim::Info { name, message }) => {
            *tally.kinds.entry("info").or_default() += 1;
            writeln!(out, "#info {name} {}", message.unwrap_or_default())
        }
        Ok(Skim::Error { error, message }) => {
            *tally.kinds.entry("error").or_default() += 1;
            writeln!(out, "error {error} {}", message.unwrap_or_default())
        }
        Ok(Skim::Unknown { .. }) => {
            *tally.kinds.entry("unknown").or_default() += 1;
            Ok(())
        }
        Ok(Skim::Event { .. }) | Err(_) => {
            tally.violations += 1;
            tracing::error!("malformed frame: {problem}");
            Ok(())
        }
    }
}

fn kind(event: &Event<'_>) -> &'static str {
    match event.body {
        Body::Commit(_) => "commit",
        Body::Sync(_) => "sync",
        Body::Identity(_) => "identity",
        Body::Account(_) => "account",
    }
}

fn write_text(event: &Event<'_>, length: usize, out: &mut impl Write) -> io::Result<()> {
    write!(out, "{} #{} {}", event.seq, kind(event), event.did)?;
    match &event.body {
        Body::Commit(commit) => {
            write!(out, " {} {length} B", commit.rev)?;
            for op in &commit.ops {
                write!(out, " {}:{}", format!("{:?}", op.action).to_lowercase(), op.path)?;
            }
        }
        Body::Sync(sync) => write!(out, " {}", sync.rev)?,
        Body::Identity(identity) => write!(out, " {}", identity.handle.unwrap_or("-"))?,
        Body::Account(account) => {
            let state = if account.active { "active" } else { "inactive" };
            write!(out, " {state} {}", account.status.unwrap_or("-"))?;
        }
    }
    writeln!(out)
}

fn to_json(event: &Event<'_>, length: usize) -> Value {
    let mut object = json!({
        "seq": event.seq,
        "kind": kind(event),
        "did": event.did,
        "time": event.time,
        "bytes": length,
    });
    let more = match &event.body {
        Body::Commit(commit) => json!({
            "rev": commit.rev,
            "since": commit.since,
            "commit": commit.commit.to_string(),
            "prevData": commit.prev_data.map(|cid| cid.to_string()),
            "ops": commit.ops.iter().map(|op| json!({
                "action": format!("{:?}", op.action).to_lowercase(),
                "path": op.path,
                "cid": op.cid.map(|cid| cid.to_string()),
                "prev": op.prev.map(|cid| cid.to_string()),
            })).collect::<Vec<_>>(),
        }),
        Body::Sync(sync) => json!({ "rev": sync.rev }),
        Body::Identity(identity) => json!({ "handle": identity.handle }),
        Body::Account(account) => json!({ "active": account.active, "status": account.status }),
    };
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
    object
}
