//! A running engine with a stand-in for control, fake hosts and plain consumers.

use std::{
    collections::{HashMap, VecDeque},
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, Receiver},
    },
    thread::JoinHandle,
    time::Duration,
};

use ports::{
    AccountAnswer, AccountId, AccountLookup, AccountState, ConsumerId, ConsumerSocket,
    ConsumerStart, HostFault, HostId, HostLimits, HostProgress, HostResume, HostSocket, Identity,
    IdentityAnswer, LocalStatus, ShardCommand, ShardId, ShardReport, Strictness, UpstreamStatus,
    ring::{self, Doorbell},
};
use protocol::frame::{account_frame, parse, write_seq};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket, protocol::Role};

use crate::{
    EngineConfig, EngineHandle,
    log::{LogConfig, LogReader},
    rt::Driver,
    wiring::start,
};

/// How long something that must happen may take before the test is given up.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn drivers() -> Vec<Driver> {
    vec![Driver::Auto, Driver::Epoll]
}

pub(super) fn config(dir: &TempDir, driver: Driver) -> EngineConfig {
    EngineConfig {
        shards: 2,
        pin: false,
        driver,
        ..EngineConfig::new(LogConfig::new(dir.path().join("log")))
    }
}

pub(super) type Socket = WebSocket<TcpStream>;

/// The engine, and a thread that answers its questions.
pub(super) struct Bench {
    commands: mpsc::Sender<(usize, ShardCommand)>,
    bell: Arc<Doorbell>,
    pub(super) reports: Receiver<ShardReport>,
    seen: VecDeque<ShardReport>,
    handle: Option<EngineHandle>,
    stopped: Arc<AtomicBool>,
    control: Option<JoinHandle<()>>,
    consumers: AtomicU64,
    log: LogReader,
}

impl Bench {
    pub(super) fn start(config: EngineConfig) -> Self {
        let bell = Doorbell::new();
        let engine = start(config, &bell).unwrap();
        let (commands, queue) = mpsc::channel();
        let (report, reports) = mpsc::channel();
        let stopped = Arc::new(AtomicBool::new(false));
        let control = Control {
            commands: engine.commands,
            reports: engine.reports,
            queue,
            report,
            stopped: Arc::clone(&stopped),
            bell: Arc::clone(&bell),
        };
        Self {
            commands,
            bell,
            reports,
            seen: VecDeque::new(),
            handle: Some(engine.handle),
            log: engine.log,
            stopped,
            control: Some(std::thread::spawn(move || control.run())),
            consumers: AtomicU64::new(0),
        }
    }

    pub(super) fn command(&self, shard: usize, command: ShardCommand) {
        self.commands.send((shard, command)).unwrap();
        self.bell.ring();
    }

    pub(super) fn connect(&self, host: HostId, address: SocketAddr, resume: HostResume) {
        let socket = HostSocket {
            host,
            hostname: address.to_string().into(),
            tls: false,
            stream: TcpStream::connect(address).unwrap(),
            strictness: Strictness::Strict,
            limits: HostLimits::default(),
            resume,
        };
        self.command(host.0 as usize % 2, ShardCommand::Host(Box::new(socket)));
    }

    pub(super) fn consumer(&self, cursor: Option<u64>) -> Consumer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, remote) = listener.accept().unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let id = ConsumerId(self.consumers.fetch_add(1, Ordering::Relaxed));
        let newest = self.log.bounds().newest;
        let start = cursor.map_or(ConsumerStart::Live(newest), ConsumerStart::Cursor);
        let socket = ConsumerSocket { id, stream, received: Vec::new(), start, remote };
        self.command(id.0 as usize % 2, ShardCommand::Consumer(Box::new(socket)));
        Consumer { id, socket: WebSocket::from_raw_socket(client, Role::Client, None) }
    }

    /// Waits for a report; those that do not fit stay for later.
    pub(super) fn wait<T>(&mut self, mut pick: impl FnMut(&ShardReport) -> Option<T>) -> T {
        let found = self
            .seen
            .iter()
            .enumerate()
            .find_map(|(at, report)| pick(report).map(|picked| (at, picked)));
        if let Some((at, picked)) = found {
            self.seen.remove(at);
            return picked;
        }
        loop {
            let report = self.reports.recv_timeout(PATIENCE).expect("the report must come");
            match pick(&report) {
                Some(picked) => return picked,
                None => self.seen.push_back(report),
            }
        }
    }

    pub(super) fn wait_fault(&mut self, host: HostId) -> HostFault {
        self.wait(|report| match report {
            ShardReport::HostClosed { host: of, fault, .. } if *of == host => Some(fault.clone()),
            _ => None,
        })
    }

    pub(super) fn wait_open(&mut self, host: HostId) {
        self.wait(|report| {
            matches!(report, ShardReport::HostOpen(of) if *of == host).then_some(())
        });
    }

    /// Waits until the host's cursor is reported to be there.
    pub(super) fn wait_cursor(&mut self, host: HostId, cursor: u64) -> HostProgress {
        let mut found = None;
        let mut kept = None;
        self.wait(|report| {
            let ShardReport::Progress(hosts) = report else { return None };
            found = hosts
                .iter()
                .find(|of| of.host == host && of.cursor.is_some_and(|at| at.0 == cursor))
                .copied();
            kept = found.map(|_| report_of(hosts));
            found
        });
        // Other hosts may stand in the same report.
        self.seen.extend(kept);
        found.unwrap()
    }

    pub(super) fn shutdown(&mut self) -> bool {
        self.handle.take().unwrap().shutdown(Duration::from_secs(5))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.shutdown(Duration::from_secs(5));
        }
        self.stopped.store(true, Ordering::SeqCst);
        self.bell.ring();
        let _ = self.control.take().unwrap().join();
    }
}

fn report_of(hosts: &[HostProgress]) -> ShardReport {
    ShardReport::Progress(hosts.to_vec())
}

/// Carries commands and reports, and knows every DID: its host is whoever asks first.
struct Control {
    commands: Vec<ring::Sender<ShardCommand>>,
    reports: Vec<ring::Receiver<ShardReport>>,
    queue: Receiver<(usize, ShardCommand)>,
    report: mpsc::Sender<ShardReport>,
    stopped: Arc<AtomicBool>,
    bell: Arc<Doorbell>,
}

impl Control {
    fn run(mut self) {
        let mut accounts: HashMap<Box<str>, AccountState> = HashMap::new();
        while !self.stopped.load(Ordering::SeqCst) {
            while let Ok((shard, command)) = self.queue.try_recv() {
                self.send(shard, command);
            }
            let taken: Vec<_> = self
                .reports
                .iter_mut()
                .flat_map(|ring| std::iter::from_fn(|| ring.pop()))
                .collect();
            for report in taken {
                if let ShardReport::Lookup(question) = report {
                    let next = AccountId(accounts.len() as u64 + 1);
                    let state = *accounts.entry(question.did.clone()).or_insert(AccountState {
                        id: next,
                        host: question.sender,
                        upstream: UpstreamStatus::ACTIVE,
                        local: LocalStatus::Active,
                        announced: None,
                        head: None,
                    });
                    let ShardId(shard) = question.shard;
                    self.send(shard.into(), answer(*question, state));
                } else {
                    let _ = self.report.send(report);
                }
            }
            self.bell.wait(Duration::from_millis(100));
        }
    }

    fn send(&mut self, shard: usize, command: ShardCommand) {
        self.commands[shard].push(command).expect("few commands are under way");
        self.commands[shard].ring();
    }
}

fn answer(question: AccountLookup, state: AccountState) -> ShardCommand {
    let identity = Identity {
        key: None,
        host: Some(state.host),
        handle: None,
        fetched_at: crate::rt::wall_micros() / 1_000_000,
    };
    ShardCommand::Account(Box::new(AccountAnswer {
        did: question.did,
        state: question.state_wanted.then_some(state),
        identity: IdentityAnswer::Found(identity),
        fresh: true,
        host_status: None,
    }))
}

/// An #account event with a number, padded by a field that nobody knows if it is to be long.
pub(super) fn event(account: u64, seq: u64, status: &str) -> Vec<u8> {
    let did = format!("did:web:a{account}.test");
    // Each a second after the one before: an #account that is not later than the last one is old.
    let time = format!(
        "2026-01-{:02}T{:02}:{:02}:{:02}Z",
        1 + seq / 86_400,
        seq / 3600 % 24,
        seq / 60 % 60,
        seq % 60
    );
    let frame = account_frame(&did, &time, true, Some(status));
    let span = parse(&frame).unwrap().seq_span;
    let mut out = frame[..span.start].to_vec();
    write_seq(seq, &mut out);
    out.extend_from_slice(&frame[span.end..]);
    out
}

/// What a fake host does with a connection that was opened with that cursor.
pub(super) type Script = Box<dyn FnOnce(&mut Socket, Option<u64>) + Send>;

/// Accepts one connection after the other, does the handshake, and plays each from a script.
pub(super) fn fake_host(scripts: Vec<Script>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        for script in scripts {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut cursor = None;
            #[expect(clippy::result_large_err, reason = "the library's signature")]
            let callback = |request: &tungstenite::handshake::server::Request, response| {
                let query = request.uri().query().unwrap_or_default();
                cursor = query.strip_prefix("cursor=").map(|text| text.parse().unwrap());
                Ok(response)
            };
            let mut socket = tungstenite::accept_hdr(stream, callback).unwrap();
            script(&mut socket, cursor);
        }
    });
    (address, thread)
}

pub(super) fn send(socket: &mut Socket, frame: Vec<u8>) {
    socket.send(Message::binary(frame)).unwrap();
}

/// Reads until the peer has gone.
pub(super) fn drain(socket: &mut Socket) {
    while socket.read().is_ok() {}
    let _ = socket.get_mut().flush();
}

pub(super) struct Consumer {
    pub(super) id: ConsumerId,
    pub(super) socket: Socket,
}

/// What a consumer gets: an event's number and DID, a notice's name, or the close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Got {
    Event(u64, String),
    Info(String),
    Error(String),
    Closed(u16, String),
    Gone,
}

impl Consumer {
    pub(super) fn next(&mut self) -> Got {
        use protocol::frame::{Skim, skim};
        loop {
            match self.socket.read() {
                Ok(Message::Binary(frame)) => {
                    return match skim(&frame).unwrap() {
                        Skim::Event { did, seq, .. } => Got::Event(seq, did.into()),
                        Skim::Info { name, .. } => Got::Info(name.into()),
                        Skim::Error { error, .. } => Got::Error(error.into()),
                        Skim::Unknown { .. } => panic!("an unknown frame"),
                    };
                }
                Ok(Message::Close(Some(frame))) => {
                    return Got::Closed(frame.code.into(), frame.reason.to_string());
                }
                Ok(_) => {}
                Err(_) => return Got::Gone,
            }
        }
    }

    /// The next `count` events.
    pub(super) fn events(&mut self, count: usize) -> Vec<(u64, String)> {
        let next = |_| match self.next() {
            Got::Event(seq, did) => (seq, did),
            other => panic!("an event was expected: {other:?}"),
        };
        (0..count).map(next).collect()
    }
}
