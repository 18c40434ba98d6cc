//! A PLC directory: DID documents from a table, and every kind of trouble on demand.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use super::http;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Every look-up is answered with this status.
    Status(u16),
    /// Connections are accepted and never answered.
    Hang,
    /// 200 with something that is not JSON.
    Garbage,
    /// 429, with so many seconds of `Retry-After`.
    Limited(u64),
    /// The right answer after so many milliseconds.
    Slow(u64),
}

#[derive(Default)]
struct Table {
    documents: HashMap<String, String>,
    /// What is answered for a DID without document, if not 404.
    gone: HashMap<String, u16>,
    requests: HashMap<String, usize>,
    /// When each request came.
    times: Vec<Instant>,
    fault: Option<Fault>,
    hung: Vec<TcpStream>,
}

/// Serves `GET /{did}` on a free port.
#[derive(Clone)]
pub struct FakePlc {
    table: Arc<Mutex<Table>>,
    address: SocketAddr,
}

impl FakePlc {
    pub fn start() -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// On a socket that is bound already, for programs that have the address built in.
    pub fn start_on(listener: TcpListener) -> Self {
        let table = Arc::new(Mutex::new(Table::default()));
        let shared = Arc::clone(&table);
        let address = http::serve_on(listener, move |request, stream| {
            answer(&shared, &request, stream);
        });
        Self { table, address }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn put(&self, did: &str, document: impl Into<String>) {
        self.table.lock().unwrap().documents.insert(did.to_owned(), document.into());
    }

    /// The status for a DID without document.
    pub fn set_gone(&self, did: &str, status: u16) {
        self.table.lock().unwrap().gone.insert(did.to_owned(), status);
    }

    pub fn remove(&self, did: &str) {
        self.table.lock().unwrap().documents.remove(did);
    }

    /// From now on; connections that hang are let go when the fault changes.
    pub fn set_fault(&self, fault: Fault) {
        let mut table = self.table.lock().unwrap();
        table.fault = Some(fault);
        table.hung.clear();
    }

    /// How often a DID was asked for.
    pub fn requests(&self, did: &str) -> usize {
        self.table.lock().unwrap().requests.get(did).copied().unwrap_or(0)
    }

    /// When each request came, in order.
    pub fn request_times(&self) -> Vec<Instant> {
        self.table.lock().unwrap().times.clone()
    }

    pub fn requests_in_all(&self) -> usize {
        self.table.lock().unwrap().requests.values().sum()
    }
}

fn answer(shared: &Mutex<Table>, request: &http::Request, stream: TcpStream) {
    let did = request.path().trim_start_matches('/').replace("%3A", ":");
    let mut table = shared.lock().unwrap();
    *table.requests.entry(did.clone()).or_default() += 1;
    table.times.push(Instant::now());
    let json = "application/json";
    match table.fault.unwrap_or(Fault::None) {
        Fault::Status(status) => http::reply(stream, status, json, r#"{"message":"trouble"}"#),
        Fault::Limited(seconds) => {
            let headers = [("Retry-After", seconds.to_string()), ("Content-Type", json.to_owned())];
            let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
            http::reply_with(stream, 429, &headers, r#"{"message":"slow down"}"#);
        }
        Fault::Hang => table.hung.push(stream),
        Fault::Garbage => http::reply(stream, 200, json, "\u{0}not json"),
        Fault::Slow(millis) => {
            drop(table);
            let until = Instant::now() + Duration::from_millis(millis);
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                thread::park_timeout(left);
            }
            answer_rightly(&shared.lock().unwrap(), &did, stream);
        }
        Fault::None => answer_rightly(&table, &did, stream),
    }
}

fn answer_rightly(table: &Table, did: &str, stream: TcpStream) {
    match table.documents.get(did) {
        Some(document) => http::reply(stream, 200, "application/did+ld+json", document),
        None => {
            let body = format!(r#"{{"message":"DID not registered: {did}"}}"#);
            let status = table.gone.get(did).copied().unwrap_or(404);
            http::reply(stream, status, "application/json", &body);
        }
    }
}

/// A DID document as the directory gives it, for a Multikey and a PDS URL.
pub fn document(did: &str, multibase_key: &str, handle: &str, pds_url: &str) -> String {
    serde_json::json!({
        "@context": ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"],
        "id": did,
        "alsoKnownAs": [format!("at://{handle}")],
        "verificationMethod": [{
            "id": format!("{did}#atproto"),
            "type": "Multikey",
            "controller": did,
            "publicKeyMultibase": multibase_key,
        }],
        "service": [{
            "id": "#atproto_pds",
            "type": "AtprotoPersonalDataServer",
            "serviceEndpoint": pds_url,
        }],
    })
    .to_string()
}
