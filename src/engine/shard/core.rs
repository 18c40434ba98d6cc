//! [`Core`]: the state of a shard, as its tasks see it.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    fmt,
    rc::Rc,
    sync::Arc,
};

use foldhash::fast::RandomState;
use ports::{
    ConsumerEnd, ConsumerId, ConsumerSocket, HostFault, HostId, HostSocket, Refusal, RelaySeq,
    ShardCommand, ShardId, ShardReport,
    ring::{Doorbell, Receiver, Sender},
};
use rustls::ClientConfig;

use super::{
    hosts::Hosts,
    mesh::{Mesh, MeshEnds},
    reports::Reports,
    stop::{Phase, Stop},
};
use crate::{
    accounts::{Accounts, AccountsConfig, Finished, Verified},
    config::EngineConfig,
    fanout::{self, ConsumerLink, Feed, LiveBytes, Replay},
    log::{LogPos, LogReader, LogView, Slice},
    rt::{self, Signal},
    sequencer::LaneProgress,
    upstream::{
        self, Admitted, FrameOutline, HostLink, Intake, RawFrame, ReadBuffers, Request, TlsSession,
    },
};

/// Everything that ties a shard to the other threads.
#[derive(Debug)]
pub struct ShardEnds {
    pub shard: ShardId,
    pub bell: Arc<Doorbell>,
    pub commands: Receiver<ShardCommand>,
    pub reports: Sender<ShardReport>,
    pub mesh: MeshEnds,
    pub verified: Sender<Verified>,
    pub progress: Arc<LaneProgress>,
    pub log: LogReader,
    pub replay: Replay,
    pub tls: Arc<ClientConfig>,
    pub stop: Arc<Stop>,
}

pub struct Core {
    pub(super) shard: ShardId,
    pub(super) config: Rc<EngineConfig>,
    pub(super) bell: Arc<Doorbell>,
    pub(super) commands: RefCell<Receiver<ShardCommand>>,
    pub(super) reports: RefCell<Reports>,
    pub(super) mesh: RefCell<Mesh>,
    pub(super) lane: RefCell<LaneEnd>,
    pub(super) accounts: RefCell<Accounts>,
    pub(super) hosts: RefCell<Hosts>,
    pub(super) consumers: RefCell<HashMap<ConsumerId, Rc<ConsumerLink>, RandomState>>,
    pub(super) log: LogReader,
    view: RefCell<LogView>,
    live: LiveBytes,
    replay: Replay,
    tls: Arc<ClientConfig>,
    pub(super) stop: Arc<Stop>,
    buffers: ReadBuffers,
    /// A push may find room.
    pub(super) room: Signal,
    pub(super) grown: Signal,
    /// The head that [`Core::grown`] was last told of.
    pub(super) seen_head: Cell<LogPos>,
    /// What consumers who left had been sent since the last tally.
    pub(super) sent_by_gone: Cell<u64>,
    pub(super) sent_reported: Cell<u64>,
    pub(super) report_due: Cell<bool>,
    /// The last phase that this shard has done.
    pub(super) phase_done: Cell<Phase>,
    pub(super) done: Cell<bool>,
}

/// The way to the sequencer, and what is on it.
pub(super) struct LaneEnd {
    pub(super) ring: Sender<Verified>,
    pub(super) progress: Arc<LaneProgress>,
    /// What the ring had no room for.
    pub(super) held: Option<Verified>,
    /// Pushed and not synced, in order.
    pub(super) unsynced: VecDeque<Finished>,
    /// How many of those that were pushed have been sent home.
    pub(super) settled: u64,
}

impl Core {
    pub fn new(config: Rc<EngineConfig>, ends: ShardEnds) -> Self {
        let limits = config.limits;
        let accounts = AccountsConfig {
            parked_wait: limits.parked_wait,
            parked_bytes_max: limits.parked_bytes_max,
            identity_ttl: limits.identity_ttl,
            accounts_max: limits.accounts_max(config.shards),
            ..AccountsConfig::new(ends.shard)
        };
        Self {
            shard: ends.shard,
            bell: ends.bell,
            commands: RefCell::new(ends.commands),
            reports: RefCell::new(Reports::new(ends.reports)),
            mesh: RefCell::new(Mesh::new(ends.shard, ends.mesh, limits.mesh)),
            lane: RefCell::new(LaneEnd {
                ring: ends.verified,
                progress: ends.progress,
                held: None,
                unsynced: VecDeque::new(),
                settled: 0,
            }),
            accounts: RefCell::new(Accounts::new(accounts)),
            hosts: RefCell::new(Hosts::new(limits.host_window, limits.paced_bytes_max)),
            consumers: RefCell::default(),
            view: RefCell::new(ends.log.view()),
            live: LiveBytes::default(),
            replay: ends.replay,
            seen_head: Cell::new(ends.log.head_pos()),
            log: ends.log,
            tls: ends.tls,
            stop: ends.stop,
            config,
            buffers: ReadBuffers::default(),
            room: Signal::default(),
            grown: Signal::default(),
            sent_by_gone: Cell::new(0),
            sent_reported: Cell::new(0),
            report_due: Cell::new(false),
            phase_done: Cell::new(Phase::Running),
            done: Cell::new(false),
        }
    }

    pub fn bell(&self) -> &Doorbell {
        &self.bell
    }

    pub fn is_done(&self) -> bool {
        self.done.get()
    }

    pub(super) fn report(&self, report: ShardReport) {
        self.reports.borrow_mut().send(report);
    }

    /// A socket to a host: begins now, or once the host's old connection has ended.
    pub(super) fn accept_host(self: &Rc<Self>, socket: Box<HostSocket>) {
        if self.stop.phase() > Phase::Running {
            return self.host_failed(socket.host, HostFault::Stopped);
        }
        let waiting = self.hosts.borrow_mut().arrive(socket, |old| old.end(HostFault::Stopped));
        if let Some(socket) = waiting {
            self.start_host(*socket);
        }
    }

    fn host_failed(&self, host: HostId, fault: HostFault) {
        self.report(ShardReport::HostClosed { host, fault, progressed: false });
    }

    fn start_host(self: &Rc<Self>, socket: HostSocket) {
        let HostSocket { host, hostname, tls, stream, strictness, limits, resume } = socket;
        let session = match tls.then(|| TlsSession::new(&self.tls, &hostname)).transpose() {
            Ok(session) => session,
            Err(fault) => return self.host_failed(host, fault),
        };
        let (reader, writer, handle) = match rt::adopt(stream) {
            Ok(parts) => parts,
            Err(error) => {
                return self.host_failed(host, HostFault::Io(error.to_string().into()));
            }
        };
        let link = Rc::new(HostLink::new(host, handle, strictness, session, rt::now()));
        let cursor = self.hosts.borrow_mut().connect(host, limits, &resume, &link);
        let request = Request {
            hostname,
            cursor,
            user_agent: self.config.user_agent.as_str().into(),
            message_bytes_max: self.config.limits.message_bytes_max,
        };
        let core = Rc::clone(self);
        rt::spawn(async move {
            let intake = Rc::clone(&core);
            let fault = upstream::follow(intake, Rc::clone(&link), (reader, writer), request).await;
            core.host_ended(&link, fault);
        });
    }

    fn host_ended(self: &Rc<Self>, link: &HostLink, fault: HostFault) {
        let (host, progressed) = (link.host(), link.progressed());
        let next = self.hosts.borrow_mut().disconnect(host);
        self.report(ShardReport::HostClosed { host, fault, progressed });
        if let Some(socket) = next {
            self.accept_host(socket);
        }
        self.bell.ring();
    }

    pub(super) fn accept_consumer(self: &Rc<Self>, socket: ConsumerSocket) {
        let ConsumerSocket { id, stream, received, start, remote: _ } = socket;
        let refused = |reason| self.report(ShardReport::ConsumerClosed { id, reason });
        if self.stop.phase() >= Phase::Parting {
            return refused(ConsumerEnd::Shutdown);
        }
        let Ok((reader, writer, handle)) = rt::adopt(stream) else {
            return refused(ConsumerEnd::Left);
        };
        let link = Rc::new(ConsumerLink::new(id, handle, self.log.head(), rt::now()));
        self.consumers.borrow_mut().insert(id, Rc::clone(&link));
        self.lane.borrow().progress.set_follows(true);
        let core = Rc::clone(self);
        rt::spawn(async move {
            let feed = Rc::clone(&core);
            let socket = (reader, writer);
            let reason = fanout::serve(feed, Rc::clone(&link), socket, received, start).await;
            core.consumer_ended(&link, reason);
        });
    }

    /// The number of the last event before a place, if the index can be read there.
    pub(super) fn seq_at(&self, pos: LogPos) -> Option<RelaySeq> {
        self.view.borrow().seq_at(pos).ok()
    }

    fn consumer_ended(&self, link: &ConsumerLink, reason: ConsumerEnd) {
        let id = link.id();
        let mut consumers = self.consumers.borrow_mut();
        consumers.remove(&id);
        self.lane.borrow().progress.set_follows(!consumers.is_empty());
        self.sent_by_gone.set(self.sent_by_gone.get() + link.written());
        if let Some(progress) = link.progress(|pos| self.seq_at(pos)) {
            self.report(ShardReport::Consumers(vec![progress]));
        }
        self.report(ShardReport::ConsumerClosed { id, reason });
        self.bell.ring();
    }
}

impl Intake for Core {
    fn admit(&self, host: HostId, outline: &FrameOutline, bytes: usize) -> Admitted {
        let head = self.log.head().0;
        self.hosts.borrow_mut().admit(host, outline.host_seq, bytes, head)
    }

    fn turn_back(&self, host: HostId) {
        self.hosts.borrow_mut().turn_back(host);
    }

    fn pace(&self, frame: RawFrame) -> Option<RawFrame> {
        self.hosts.borrow_mut().pace(frame, rt::wall_micros())
    }

    fn push(&self, frame: RawFrame) -> Result<(), RawFrame> {
        self.mesh.borrow_mut().push(frame)
    }

    fn flush(&self) {
        if self.mesh.borrow_mut().flush() {
            self.bell.ring();
        }
    }

    fn room(&self) -> &Signal {
        &self.room
    }

    fn refuse(&self, refusal: Refusal) {
        let numbered = refusal.host_seq.is_some();
        self.hosts.borrow_mut().refuse(refusal.host, numbered, refusal.reason);
        self.reports.borrow_mut().refuse(refusal);
    }

    fn is_stopping(&self) -> bool {
        self.stop.phase() > Phase::Running
    }

    fn note_open(&self, host: HostId) {
        self.report(ShardReport::HostOpen(host));
        self.bell.ring();
    }

    fn home(&self) -> ShardId {
        self.shard
    }

    fn buffers(&self) -> &ReadBuffers {
        &self.buffers
    }
}

impl Feed for Core {
    fn log(&self) -> &LogReader {
        &self.log
    }

    fn slice(&self, pos: LogPos) -> Slice {
        self.view.borrow_mut().slice(pos)
    }

    fn grown(&self) -> &Signal {
        &self.grown
    }

    fn live(&self) -> &LiveBytes {
        &self.live
    }

    fn replay(&self) -> &Replay {
        &self.replay
    }

    fn is_stopping(&self) -> bool {
        self.stop.phase() >= Phase::Parting
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("shard", &self.shard).finish_non_exhaustive()
    }
}
