//! A PDS host as the relay sees it: describeServer, getRepoStatus, and a stream that a test writes.

use std::{
    collections::HashMap,
    io::{self, Cursor, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
};

use tungstenite::{WebSocket, protocol::Role};

use super::{eventually, http, patience};

#[derive(Default)]
struct State {
    /// Frames in the order of their seq, as WebSocket messages.
    frames: Vec<(u64, Vec<u8>)>,
    /// The cursor of each connection so far.
    cursors: Vec<Option<u64>>,
    /// User-Agent of the last connection.
    user_agent: String,
    open: HashMap<usize, Arc<Locked>>,
    /// How many frames each connection is past.
    written: HashMap<usize, usize>,
    statuses: HashMap<String, String>,
    /// New connections are refused with this HTTP status.
    refuse: Option<u16>,
    /// New connections get these bytes in place of a handshake.
    reply: Option<Vec<u8>>,
    /// What is at `/.well-known/did.json`.
    document: Option<String>,
    /// Connections are closed right after the handshake.
    slam: bool,
    /// A cursor above all frames is answered with `FutureCursor`.
    strict_cursors: bool,
    /// Whatever the cursor says, the stream begins with its first frame.
    from_start: bool,
    server_header: String,
    describe_requests: usize,
    describe: Describe,
    /// Status requests get no answer while this is set.
    statuses_hang: bool,
    status_requests: HashMap<String, usize>,
    hung: Vec<TcpStream>,
}

/// What a host says of itself when it is asked with `describeServer`.
#[derive(Clone, Debug, Default)]
pub enum Describe {
    #[default]
    Right,
    Status(u16),
    Body(String),
    /// A redirect to there.
    Redirect(String),
    Hang,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Whole writes of two threads must not mix.
struct Locked {
    stream: TcpStream,
    writing: Mutex<()>,
}

impl Locked {
    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        let _whole = self.writing.lock().unwrap();
        (&self.stream).write_all(bytes)
    }
}

/// What tungstenite reads from (behind the request head that was read already) and writes to.
struct Upgraded {
    head: Cursor<Vec<u8>>,
    socket: Arc<Locked>,
}

impl Read for Upgraded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.head.read(buffer)? {
            0 => (&self.socket.stream).read(buffer),
            count => Ok(count),
        }
    }
}

impl Write for Upgraded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One host on a free port of 127.0.0.1. Cursors are exclusive, as with a real PDS.
#[derive(Clone)]
pub struct FakePds {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl FakePds {
    pub fn start() -> Self {
        let state = State { server_header: "fake-pds".to_owned(), ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let serving = Arc::clone(&shared);
        let address = http::serve(move |request, stream| handle(&serving, &request, stream));
        Self { shared, address }
    }

    /// The name under which the relay knows the host.
    pub fn hostname(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.hostname())
    }

    /// Appends a frame to the stream: open connections get it, later ones too if their cursor is below.
    pub fn push(&self, seq: u64, frame: impl Into<Vec<u8>>) {
        self.shared.state.lock().unwrap().frames.push((seq, frame.into()));
        self.shared.changed.notify_all();
    }

    /// Appends many frames at once.
    pub fn push_all(&self, frames: impl IntoIterator<Item = (u64, Vec<u8>)>) {
        self.shared.state.lock().unwrap().frames.extend(frames);
        self.shared.changed.notify_all();
    }

    /// Writes bytes to the open connections as they are, between two messages.
    pub fn send_raw(&self, bytes: &[u8]) {
        let open: Vec<_> = self.shared.state.lock().unwrap().open.values().cloned().collect();
        for socket in open {
            // The relay may have hung up in the middle: that is what such tests are about.
            let _ = socket.write_all(bytes);
        }
    }

    /// Waits until all frames so far have been written to the open connections.
    pub fn wait_until_written(&self) {
        let state = self.shared.state.lock().unwrap();
        let (_state, timeout) = self
            .shared
            .changed
            .wait_timeout_while(state, patience(), |state| {
                let count = state.frames.len();
                state.open.keys().any(|number| state.written.get(number) != Some(&count))
            })
            .unwrap();
        assert!(!timeout.timed_out(), "the relay does not take what was sent");
    }

    /// Cuts all open connections.
    pub fn cut(&self) {
        for socket in self.shared.state.lock().unwrap().open.values() {
            let _ = socket.stream.shutdown(Shutdown::Both);
        }
    }

    /// The host comes back with another stream, and sends all of it whatever it is asked for, until
    /// [`FakePds::heed_cursors`].
    pub fn start_over(&self, frames: impl IntoIterator<Item = (u64, Vec<u8>)>) {
        let mut state = self.shared.state.lock().unwrap();
        state.frames = frames.into_iter().collect();
        state.from_start = true;
        drop(state);
        self.cut();
    }

    pub fn heed_cursors(&self) {
        self.shared.state.lock().unwrap().from_start = false;
    }

    pub fn set_status(&self, did: &str, json: impl Into<String>) {
        self.shared.state.lock().unwrap().statuses.insert(did.to_owned(), json.into());
    }

    /// How often the relay has asked for an account's status.
    pub fn status_requests(&self, did: &str) -> usize {
        self.shared.state.lock().unwrap().status_requests.get(did).copied().unwrap_or(0)
    }

    /// Requests for an account's status are not answered; when that ends, those that hang are cut.
    pub fn set_statuses_hang(&self, hang: bool) {
        let mut state = self.shared.state.lock().unwrap();
        state.statuses_hang = hang;
        state.hung.clear();
    }

    pub fn set_describe(&self, describe: Describe) {
        self.shared.state.lock().unwrap().describe = describe;
    }

    pub fn set_refuse(&self, status: Option<u16>) {
        self.shared.state.lock().unwrap().refuse = status;
    }

    /// What new connections get in place of a handshake.
    pub fn set_reply(&self, reply: Option<&[u8]>) {
        self.shared.state.lock().unwrap().reply = reply.map(<[u8]>::to_vec);
    }

    /// Makes the host the server of `did:web:localhost%3APORT`.
    pub fn set_document(&self, document: Option<String>) {
        self.shared.state.lock().unwrap().document = document;
    }

    /// The DID whose document the host serves.
    pub fn web_did(&self) -> String {
        format!("did:web:localhost%3A{}", self.address.port())
    }

    /// Accept, then close at once.
    pub fn set_slam(&self, slam: bool) {
        self.shared.state.lock().unwrap().slam = slam;
    }

    /// As a host that has lost its data: it begins to number anew, and says so.
    pub fn forget(&self) {
        let mut state = self.shared.state.lock().unwrap();
        state.frames.clear();
        state.strict_cursors = true;
    }

    pub fn set_server_header(&self, server: &str) {
        server.clone_into(&mut self.shared.state.lock().unwrap().server_header);
    }

    /// The cursors of all stream connections so far, in order.
    pub fn cursors(&self) -> Vec<Option<u64>> {
        self.shared.state.lock().unwrap().cursors.clone()
    }

    pub fn user_agent(&self) -> String {
        self.shared.state.lock().unwrap().user_agent.clone()
    }

    pub fn describe_requests(&self) -> usize {
        self.shared.state.lock().unwrap().describe_requests
    }

    pub fn open_connections(&self) -> usize {
        self.shared.state.lock().unwrap().open.len()
    }

    /// Waits until the relay has opened its stream connection number `count`.
    pub fn wait_for_connection(&self, count: usize) {
        let state = self.shared.state.lock().unwrap();
        let (_state, timeout) = self
            .shared
            .changed
            .wait_timeout_while(state, patience(), |state| state.cursors.len() < count)
            .unwrap();
        assert!(!timeout.timed_out(), "the relay did not connect {count} times");
    }

    /// Waits until no stream connection is open.
    pub fn wait_for_hang_up(&self) {
        eventually("the relay to hang up", || (self.open_connections() == 0).then_some(()));
    }
}

fn handle(shared: &Arc<Shared>, request: &http::Request, stream: TcpStream) {
    match request.path() {
        "/xrpc/com.atproto.server.describeServer" => describe_server(shared, stream),
        "/xrpc/com.atproto.sync.getRepoStatus" => tell_status(shared, request, stream),
        "/xrpc/com.atproto.sync.subscribeRepos" => subscribe(shared, request, stream),
        "/.well-known/did.json" => match shared.state.lock().unwrap().document.clone() {
            Some(document) => http::reply(stream, 200, "application/json", &document),
            None => http::reply(stream, 404, "text/plain", "not found"),
        },
        _ => http::reply(stream, 404, "application/json", r#"{"error":"NotFound"}"#),
    }
}

fn describe_server(shared: &Shared, stream: TcpStream) {
    let mut state = shared.state.lock().unwrap();
    state.describe_requests += 1;
    let server = state.server_header.clone();
    let headers = [("Server", server.as_str()), ("Content-Type", "application/json")];
    match state.describe.clone() {
        Describe::Right => {
            let body = r#"{"did":"did:web:localhost","availableUserDomains":[".test"]}"#;
            http::reply_with(stream, 200, &headers, body);
        }
        Describe::Status(status) => http::reply_with(stream, status, &headers, "{}"),
        Describe::Body(body) => http::reply_with(stream, 200, &headers, &body),
        Describe::Redirect(to) => {
            let headers = [headers[0], ("Location", to.as_str())];
            http::reply_with(stream, 302, &headers, "");
        }
        Describe::Hang => state.hung.push(stream),
    }
}

fn tell_status(shared: &Shared, request: &http::Request, stream: TcpStream) {
    let did = request.query("did").unwrap_or_default();
    let mut state = shared.state.lock().unwrap();
    *state.status_requests.entry(did.clone()).or_default() += 1;
    if state.statuses_hang {
        state.hung.push(stream);
        return;
    }
    match state.statuses.get(&did) {
        Some(json) => http::reply(stream, 200, "application/json", json),
        None => http::reply(stream, 400, "application/json", r#"{"error":"RepoNotFound"}"#),
    }
}

fn subscribe(shared: &Arc<Shared>, request: &http::Request, stream: TcpStream) {
    let cursor = request.query("cursor").and_then(|text| text.parse().ok());
    let (refuse, reply, slam, future, server) = {
        let mut state = shared.state.lock().unwrap();
        state.user_agent = request.headers.get("user-agent").cloned().unwrap_or_default();
        let newest = state.frames.last().map_or(0, |(seq, _)| *seq);
        let future = state.strict_cursors && cursor.is_some_and(|cursor| cursor > newest);
        (state.refuse, state.reply.clone(), state.slam, future, state.server_header.clone())
    };
    if let Some(reply) = reply {
        count_connection(shared, cursor, None);
        let _ = (&stream).write_all(&reply);
        return;
    }
    if let Some(status) = refuse {
        count_connection(shared, cursor, None);
        return http::reply(stream, status, "application/json", r#"{"error":"Refused"}"#);
    }
    stream.set_nodelay(true).unwrap();
    let socket = Arc::new(Locked { stream, writing: Mutex::new(()) });
    let upgraded =
        Upgraded { head: Cursor::new(request.head.clone()), socket: Arc::clone(&socket) };
    #[allow(clippy::result_large_err, reason = "the signature is tungstenite's")]
    let greet = |_: &tungstenite::handshake::server::Request,
                 mut reply: tungstenite::handshake::server::Response| {
        reply.headers_mut().insert("Server", server.parse().unwrap());
        Ok(reply)
    };
    let Ok(websocket) = tungstenite::accept_hdr(upgraded, greet) else { return };
    // From here on this thread writes frames and the other one reads: pings are answered there.
    let lasting = (!slam && !future).then(|| Arc::clone(&socket));
    let (number, live) = count_connection(shared, cursor, lasting);
    if future {
        let mut bytes = Vec::new();
        write_message(&mut bytes, b"\xa1\x62op\x20\xa1\x65error\x6cFutureCursor");
        let _ = socket.write_all(&bytes);
    }
    if slam || future {
        let _ = socket.stream.shutdown(Shutdown::Both);
        return;
    }
    drop(websocket);
    let reading = Arc::clone(&socket);
    let reader_shared = Arc::clone(shared);
    thread::spawn(move || {
        read_until_closed(reading);
        reader_shared.state.lock().unwrap().open.remove(&number);
        reader_shared.changed.notify_all();
    });
    write_frames(shared, number, &socket, cursor, live);
}

/// The connection's number, and where the stream is now: whoever waits for the connection may go on
/// pushing frames at once, and those belong to it. One that lasts is open in the same moment, as
/// they may also write to it, or wait for its end.
fn count_connection(
    shared: &Shared,
    cursor: Option<u64>,
    lasting: Option<Arc<Locked>>,
) -> (usize, usize) {
    let mut state = shared.state.lock().unwrap();
    state.cursors.push(cursor);
    let number = state.cursors.len();
    if let Some(socket) = lasting {
        state.open.insert(number, socket);
    }
    shared.changed.notify_all();
    (number, state.frames.len())
}

fn read_until_closed(socket: Arc<Locked>) {
    let stream = Upgraded { head: Cursor::new(Vec::new()), socket: Arc::clone(&socket) };
    let mut websocket = WebSocket::from_raw_socket(stream, Role::Server, None);
    while websocket.read().is_ok() {}
    let _ = socket.stream.shutdown(Shutdown::Both);
}

fn write_frames(shared: &Shared, number: usize, socket: &Locked, cursor: Option<u64>, live: usize) {
    let mut state = shared.state.lock().unwrap();
    // Without a cursor a stream begins now.
    let above = |cursor: u64| state.frames.iter().position(|(seq, _)| *seq > cursor);
    let mut index = match cursor {
        _ if state.from_start => 0,
        Some(cursor) => above(cursor).unwrap_or(state.frames.len()),
        None => live,
    };
    loop {
        if !state.open.contains_key(&number) {
            return;
        }
        let mut bytes = Vec::new();
        for (_, frame) in state.frames.iter().skip(index).take(256) {
            write_message(&mut bytes, frame);
            index += 1;
        }
        if bytes.is_empty() {
            state.written.insert(number, index);
            shared.changed.notify_all();
            state = shared.changed.wait(state).unwrap();
            continue;
        }
        drop(state);
        if socket.write_all(&bytes).is_err() {
            return;
        }
        state = shared.state.lock().unwrap();
    }
}

/// One unmasked binary message in one frame.
pub fn write_message(out: &mut Vec<u8>, payload: &[u8]) {
    write_frame(out, 0x82, payload);
}

/// One unmasked WebSocket frame with the given first byte (FIN, RSV and opcode).
pub fn write_frame(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    out.push(first);
    match payload.len() {
        length @ 0..=125 => out.push(length as u8),
        length @ 126..=0xffff => {
            out.push(126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}
