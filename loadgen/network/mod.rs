//! The simulated network: a PLC directory and PDS hosts that emit a corpus. No IO here: the drivers
//! move the bytes, this says which.

mod host;
mod http;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub use host::{HostSession, Step};
pub use http::{HEAD_BYTES_MAX, HttpError, Request, parse_head, response};
use serde_json::json;

use crate::corpus::{Corpus, DidIndex, EventKind};
use crate::pace::Pace;
use crate::{clock, repo, wire};

/// Fewest events under way that a host is limited to.
const IN_FLIGHT_MIN: usize = 16;

/// Which server a connection has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Plc,
    Host(u32),
}

/// What to do with a request.
#[derive(Debug)]
pub enum Reply {
    /// Send these bytes; the connection may go on.
    Http(Vec<u8>),
    /// Send these bytes, then the stream.
    Stream(Vec<u8>, HostSession),
}

/// State of one host that all threads see.
#[derive(Debug, Default)]
pub struct HostState {
    port: AtomicU32,
    /// Streams that are open now.
    pub streams: AtomicU32,
    /// Streams that were opened so far.
    pub opened: AtomicU32,
    /// Up to which place of its stream the comparing consumer has seen events.
    pub seen: AtomicU64,
}

/// Everything that the servers share.
#[derive(Debug)]
pub struct Network {
    pub corpus: Arc<Corpus>,
    pub pace: Pace,
    pub hosts: Vec<HostState>,
    /// When each event was last handed to the kernel, by its number; zero if it was not yet.
    pub written_ns: Vec<AtomicU64>,
    pub events_written: AtomicU64,
    pub bytes_written: AtomicU64,
    pub directory_lookups: AtomicU64,
    /// Events that each host may have under way at full speed; zero for as many as TCP takes.
    in_flight_max: usize,
    plc_port: AtomicU32,
    dids: DidIndex,
}

impl Network {
    /// `in_flight_max` is for all hosts together; zero is no limit.
    pub fn new(corpus: Arc<Corpus>, in_flight_max: usize) -> Self {
        let hosts = corpus.hosts.len().max(1);
        let in_flight_max = match in_flight_max {
            0 => 0,
            all => (all / hosts).max(IN_FLIGHT_MIN),
        };
        Self {
            in_flight_max,
            pace: Pace::default(),
            hosts: corpus.hosts.iter().map(|_| HostState::default()).collect(),
            written_ns: corpus.events.iter().map(|_| AtomicU64::new(0)).collect(),
            events_written: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
            directory_lookups: AtomicU64::new(0),
            plc_port: AtomicU32::new(0),
            dids: corpus.accounts_by_did(),
            corpus,
        }
    }

    /// All servers, the directory first.
    pub fn services(&self) -> impl Iterator<Item = Service> + use<> {
        let hosts = self.hosts.len() as u32;
        std::iter::once(Service::Plc).chain((0..hosts).map(Service::Host))
    }

    pub fn set_port(&self, service: Service, port: u16) {
        self.port_cell(service).store(u32::from(port), Ordering::Release);
    }

    /// The service's port; `None` before it listens.
    pub fn port(&self, service: Service) -> Option<u16> {
        match self.port_cell(service).load(Ordering::Acquire) {
            0 => None,
            port => Some(port as u16),
        }
    }

    fn port_cell(&self, service: Service) -> &AtomicU32 {
        match service {
            Service::Plc => &self.plc_port,
            Service::Host(host) => &self.hosts[host as usize].port,
        }
    }

    pub fn plc_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port(Service::Plc).unwrap_or(0))
    }

    /// What a relay is asked to crawl: `localhost:PORT`.
    pub fn hostname(&self, host: u32) -> String {
        format!("localhost:{}", self.port(Service::Host(host)).unwrap_or(0))
    }

    /// Hosts that have at least one stream open.
    pub fn hosts_connected(&self) -> usize {
        self.hosts.iter().filter(|host| host.streams.load(Ordering::Relaxed) > 0).count()
    }

    pub fn respond(self: &Arc<Self>, service: Service, request: &Request<'_>) -> Reply {
        match service {
            Service::Plc => Reply::Http(self.plc(request)),
            Service::Host(host) => self.host(host, request),
        }
    }

    fn plc(&self, request: &Request<'_>) -> Vec<u8> {
        let did = request.path.trim_start_matches('/');
        if did == "_health" {
            return response(200, &json!({ "version": "loadgen" }));
        }
        self.directory_lookups.fetch_add(1, Ordering::Relaxed);
        match self.dids.get(did.as_bytes()) {
            Some(&account) => {
                http::raw_response(200, "application/did+ld+json", &self.document(account))
            }
            None => response(404, &json!({ "message": format!("DID not registered: {did}") })),
        }
    }

    /// The account's DID document as of now.
    pub fn document(&self, account: u32) -> String {
        let account = &self.corpus.accounts[account as usize];
        let pds = format!("http://{}", self.hostname(account.host));
        repo::did_document(&account.did, &account.handle, &account.key, &pds)
    }

    fn host(self: &Arc<Self>, host: u32, request: &Request<'_>) -> Reply {
        let Some(method) = request.path.strip_prefix("/xrpc/") else {
            return Reply::Http(response(404, &json!({ "error": "NotFound" })));
        };
        match method {
            "com.atproto.sync.subscribeRepos" => self.subscribe(host, request),
            "com.atproto.server.describeServer" => Reply::Http(response(
                200,
                &json!({
                    "did": "did:web:localhost",
                    "availableUserDomains": [".test"],
                    "inviteCodeRequired": false,
                }),
            )),
            "com.atproto.sync.getRepoStatus" => Reply::Http(self.repo_status(host, request)),
            "_health" => Reply::Http(response(200, &json!({ "version": "loadgen" }))),
            _ => Reply::Http(response(
                501,
                &json!({ "error": "MethodNotImplemented", "message": "Method Not Implemented" }),
            )),
        }
    }

    fn subscribe(self: &Arc<Self>, host: u32, request: &Request<'_>) -> Reply {
        let Some(key) = request.websocket_key else {
            return Reply::Http(response(426, &json!({ "error": "UpgradeRequired" })));
        };
        let cursor = match request.param("cursor").map(str::parse::<u64>) {
            None => None,
            Some(Ok(cursor)) => Some(cursor),
            Some(Err(_)) => {
                return Reply::Http(response(400, &json!({ "error": "InvalidRequest" })));
            }
        };
        let session = HostSession::open(Arc::clone(self), host, cursor);
        Reply::Stream(wire::accept_response(key), session)
    }

    fn repo_status(&self, host: u32, request: &Request<'_>) -> Vec<u8> {
        let did = request.param("did").map(http::percent_decode).unwrap_or_default();
        let account =
            self.dids.get(did.as_bytes()).map(|&index| &self.corpus.accounts[index as usize]);
        let Some(account) = account.filter(|account| account.host == host) else {
            return response(400, &json!({ "error": "RepoNotFound", "message": did }));
        };
        let released = self.pace.phase().released(clock::now_nanos());
        let last =
            account.events.iter().rev().filter(|&&event| event < released).find_map(|&event| {
                match self.corpus.events[event as usize].kind {
                    EventKind::Deactivate => Some(false),
                    EventKind::Activate => Some(true),
                    EventKind::Commit | EventKind::Sync | EventKind::Identity => None,
                }
            });
        match last {
            Some(false) => {
                response(200, &json!({ "did": did, "active": false, "status": "deactivated" }))
            }
            _ => response(200, &json!({ "did": did, "active": true })),
        }
    }
}
