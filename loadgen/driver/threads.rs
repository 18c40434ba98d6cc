//! The driver without io_uring: a thread for each connection, blocking sockets. For small sizes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};

use super::{ConsumerOrder, DriverError, DriverHandle, DriverKind, LOOK_INTERVAL, nap};
use crate::clock;
use crate::consumer::ConsumerSession;
use crate::network::{HostSession, Network, Reply, Service, Step, parse_head};
use crate::wire::{self, Message, MessageReader, Peer};

/// Longest blocking call, so that a stop is seen.
const PATIENCE: Duration = Duration::from_millis(200);

type Stop = Arc<AtomicBool>;

pub(super) fn start(network: &Arc<Network>, plc_port: u16) -> Result<DriverHandle, DriverError> {
    let stop = Stop::default();
    let mut threads = Vec::new();
    for service in network.services() {
        let port = if service == Service::Plc { plc_port } else { 0 };
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(DriverError::Listen)?;
        let address = listener.local_addr().map_err(DriverError::Listen)?;
        listener.set_nonblocking(true).map_err(DriverError::Listen)?;
        network.set_port(service, address.port());
        let (network, stop) = (Arc::clone(network), Arc::clone(&stop));
        threads.push(spawn("lg-accept", move || accept(&listener, &network, service, &stop))?);
    }
    let (orders, inbox) = channel::unbounded();
    let stop_consumers = Arc::clone(&stop);
    threads.push(spawn("lg-consumers", move || connect_consumers(&inbox, &stop_consumers))?);
    Ok(DriverHandle { kind: DriverKind::Threads, orders: vec![orders], next: 0, stop, threads })
}

fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<thread::JoinHandle<()>, DriverError> {
    thread::Builder::new().name(name.into()).spawn(work).map_err(DriverError::Spawn)
}

/// Takes connections until the stop, then waits for their threads.
fn accept(listener: &TcpListener, network: &Arc<Network>, service: Service, stop: &Stop) {
    let ticks = channel::tick(LOOK_INTERVAL);
    let mut connections = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let Ok((stream, _)) = listener.accept() else {
            // Nobody there, or out of descriptors: look again in a while.
            if ticks.recv().is_err() {
                break;
            }
            continue;
        };
        let (network, stop) = (Arc::clone(network), Arc::clone(stop));
        connections.retain(|thread: &thread::JoinHandle<()>| !thread.is_finished());
        let work = move || {
            if let Err(error) = serve(stream, &network, service, &stop) {
                tracing::debug!("{service:?}: connection ended: {error}");
            }
        };
        match spawn("lg-serve", work) {
            Ok(thread) => connections.push(thread),
            Err(error) => tracing::warn!("{error}"),
        }
    }
    for thread in connections {
        drop(thread.join());
    }
}

fn serve(
    mut stream: TcpStream,
    network: &Arc<Network>,
    service: Service,
    stop: &Stop,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut received = Vec::new();
    loop {
        let request =
            parse_head(&received).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        let Some(request) = request else {
            let mut buffer = [0; 4096];
            match read_patiently(&mut stream, &mut buffer, stop)? {
                0 => return Ok(()),
                read => received.extend_from_slice(&buffer[..read]),
            }
            continue;
        };
        match network.respond(service, &request) {
            Reply::Http(bytes) => write_patiently(&mut stream, &bytes, stop)?,
            Reply::Stream(bytes, session) => {
                write_patiently(&mut stream, &bytes, stop)?;
                return emit(stream, session, &received[request.len..], stop);
            }
        }
        let len = request.len;
        received.drain(..len);
    }
}

/// Sends the host's events here, while another thread answers pings.
fn emit(
    mut stream: TcpStream,
    mut session: HostSession,
    early: &[u8],
    stop: &Stop,
) -> io::Result<()> {
    let (control, inbox) = channel::bounded(64);
    let reader_stream = stream.try_clone()?;
    let mut reader = MessageReader::new(Peer::Client, 4096);
    reader.push(early);
    let reader_stop = Arc::clone(stop);
    let answering = spawn("lg-answer", move || {
        if let Err(error) = answer(reader_stream, reader, &control, &reader_stop) {
            tracing::debug!("subscriber gone: {error}");
        }
    })
    .map_err(io::Error::other)?;
    let result = emit_until_closed(&mut stream, &mut session, &inbox, stop);
    // Ends the other thread's read.
    drop(stream.shutdown(Shutdown::Both));
    drop(answering.join());
    result
}

fn emit_until_closed(
    stream: &mut TcpStream,
    session: &mut HostSession,
    inbox: &Receiver<Vec<u8>>,
    stop: &Stop,
) -> io::Result<()> {
    while !stop.load(Ordering::Acquire) {
        let now = clock::now_nanos();
        let until = match session.step(now) {
            Step::Send(bytes) => {
                write_patiently(stream, bytes, stop)?;
                Some(now)
            }
            Step::Until(due) => Some(due),
            Step::Held => None,
            Step::Close(bytes) => return write_patiently(stream, &bytes, stop),
        };
        match inbox.recv_timeout(nap(until, now)) {
            Ok(bytes) => write_patiently(stream, &bytes, stop)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
    Ok(())
}

/// Reads what the subscriber sends: pings get a pong, a close is answered; then the sender of
/// `control` is dropped, which ends the stream.
fn answer(
    mut stream: TcpStream,
    mut reader: MessageReader,
    control: &Sender<Vec<u8>>,
    stop: &Stop,
) -> io::Result<()> {
    loop {
        while let Some(message) =
            reader.poll_message().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?
        {
            let answer = match message {
                Message::Ping(payload) => wire::control_frame(wire::OP_PONG, payload, Peer::Server),
                Message::Close(code, _) => wire::close_frame(code, "", Peer::Server),
                Message::Binary(_) | Message::Text(_) | Message::Pong => continue,
            };
            let closing = answer[0] & 0x0f == wire::OP_CLOSE;
            if control.send(answer).is_err() || closing {
                return Ok(());
            }
        }
        match read_patiently(&mut stream, reader.space(), stop)? {
            0 => return Ok(()),
            read => reader.filled(read),
        }
    }
}

fn connect_consumers(inbox: &Receiver<ConsumerOrder>, stop: &Stop) {
    let mut threads = Vec::new();
    while !stop.load(Ordering::Acquire) {
        match inbox.recv_timeout(PATIENCE) {
            Ok(order) => {
                let stop = Arc::clone(stop);
                let work = move || {
                    if let Err(error) = consume(&order, &stop) {
                        tracing::info!("consumer ended: {error}");
                    }
                    order.report.closed.store(true, Ordering::Release);
                };
                match spawn("lg-consume", work) {
                    Ok(thread) => threads.push(thread),
                    Err(error) => tracing::warn!("{error}"),
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    for thread in threads {
        drop(thread.join());
    }
}

fn consume(order: &ConsumerOrder, stop: &Stop) -> io::Result<()> {
    let mut session = ConsumerSession::new(&order.url, &order.watch, Arc::clone(&order.report))
        .map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(order.address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    loop {
        if let Some(bytes) = session.take_outbound() {
            write_patiently(&mut stream, &bytes, stop)?;
        }
        match read_patiently(&mut stream, session.space(), stop)? {
            0 => return Ok(()),
            read => session.handle_read(read, clock::now_nanos()).map_err(io::Error::other)?,
        }
    }
}

/// One read, however long it takes; zero at the end of the stream and at the stop.
fn read_patiently(stream: &mut TcpStream, buffer: &mut [u8], stop: &Stop) -> io::Result<usize> {
    while !stop.load(Ordering::Acquire) {
        match stream.read(buffer) {
            Err(error) if is_timeout(&error) => {}
            result => return result,
        }
    }
    Ok(0)
}

fn write_patiently(stream: &mut TcpStream, mut bytes: &[u8], stop: &Stop) -> io::Result<()> {
    while !bytes.is_empty() && !stop.load(Ordering::Acquire) {
        match stream.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
