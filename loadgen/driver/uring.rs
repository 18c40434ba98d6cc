//! The driver on glommio (io_uring). All use of glommio is here.
//!
//! Each executor has a thread, some of the services, and some of the consumers. A stream that has
//! nothing due sleeps until its subscriber says something, its next event is due, or another phase
//! begins, which one task of each executor looks out for.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{self, Receiver, Sender};
use futures_lite::future::or;
use futures_lite::io::{ReadHalf, WriteHalf, split};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::timer::sleep;
use glommio::{LocalExecutorBuilder, Placement, spawn_local};

use super::{ConsumerOrder, DriverError, DriverHandle, DriverKind, LOOK_INTERVAL};
use crate::clock;
use crate::consumer::ConsumerSession;
use crate::network::{HostSession, Network, Reply, Service, Step, parse_head};
use crate::wire::{self, Message, MessageReader, Peer};

/// Whether an executor can be made and run here.
pub(super) fn probe() -> Result<(), DriverError> {
    let attempt = || -> Result<(), String> {
        let executor = LocalExecutorBuilder::new(Placement::Unbound)
            .make()
            .map_err(|error| error.to_string())?;
        executor.run(sleep(Duration::from_micros(1)));
        Ok(())
    };
    let thread = thread::Builder::new().name("lg-probe".into()).spawn(attempt);
    match thread.map_err(DriverError::Spawn)?.join() {
        Ok(result) => result.map_err(DriverError::Uring),
        Err(_) => Err(DriverError::Uring("the executor panicked".into())),
    }
}

/// What an executor starts with.
struct Assignment {
    network: Arc<Network>,
    services: Vec<(Service, u16)>,
    orders: Receiver<ConsumerOrder>,
    ready: Sender<Result<(), DriverError>>,
    stop: Arc<AtomicBool>,
}

pub(super) fn start(
    network: &Arc<Network>,
    plc_port: u16,
    executors: usize,
) -> Result<DriverHandle, DriverError> {
    let executors = executors.max(1);
    let mut handle = DriverHandle {
        kind: DriverKind::Glommio,
        orders: Vec::new(),
        next: 0,
        stop: Arc::new(AtomicBool::new(false)),
        threads: Vec::new(),
    };
    let (ready, readiness) = channel::unbounded();
    for executor in 0..executors {
        let port = |service| if service == Service::Plc { plc_port } else { 0 };
        let (orders, inbox) = channel::unbounded();
        let assignment = Assignment {
            network: Arc::clone(network),
            services: network
                .services()
                .skip(executor)
                .step_by(executors)
                .map(|service| (service, port(service)))
                .collect(),
            orders: inbox,
            ready: ready.clone(),
            stop: Arc::clone(&handle.stop),
        };
        let thread = thread::Builder::new()
            .name(format!("lg-uring-{executor}"))
            .spawn(move || run(assignment))
            .map_err(DriverError::Spawn)?;
        handle.orders.push(orders);
        handle.threads.push(thread);
    }
    for _ in 0..executors {
        let answer = readiness.recv();
        answer.unwrap_or_else(|_| Err(DriverError::Uring("an executor went away".into())))?;
    }
    Ok(handle)
}

fn run(assignment: Assignment) {
    let ready = assignment.ready.clone();
    match LocalExecutorBuilder::new(Placement::Unbound).make() {
        Ok(executor) => executor.run(executor_main(assignment)),
        Err(error) => drop(ready.send(Err(DriverError::Uring(error.to_string())))),
    }
}

/// Streams of this executor that a new phase must wake.
type Streams = Rc<RefCell<Vec<Weak<StreamSignals>>>>;

async fn executor_main(assignment: Assignment) {
    let Assignment { network, services, orders, ready, stop } = assignment;
    let streams = Streams::default();
    for (service, port) in services {
        match listen(&network, service, port) {
            Ok(listener) => {
                spawn_local(accept(listener, Arc::clone(&network), service, Rc::clone(&streams)))
                    .detach();
            }
            Err(error) => return drop(ready.send(Err(DriverError::Listen(error)))),
        }
    }
    drop(ready.send(Ok(())));
    let mut phase = network.pace.phase();
    while !stop.load(Ordering::Acquire) {
        sleep(LOOK_INTERVAL).await;
        for order in orders.try_iter() {
            spawn_local(consume(order)).detach();
        }
        let current = network.pace.phase();
        if current != phase {
            phase = current;
            streams.borrow_mut().retain(|stream| match stream.upgrade() {
                Some(stream) => {
                    stream.notify();
                    true
                }
                None => false,
            });
        }
    }
}

fn listen(network: &Network, service: Service, port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(io::Error::from)?;
    network.set_port(service, listener.local_addr().map_err(io::Error::from)?.port());
    Ok(listener)
}

async fn accept(listener: TcpListener, network: Arc<Network>, service: Service, streams: Streams) {
    loop {
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!("{service:?}: accept failed: {error}");
                sleep(LOOK_INTERVAL).await;
                continue;
            }
        };
        let (network, streams) = (Arc::clone(&network), Rc::clone(&streams));
        spawn_local(async move {
            if let Err(error) = serve(stream, &network, service, &streams).await {
                tracing::debug!("{service:?}: connection ended: {error}");
            }
        })
        .detach();
    }
}

async fn serve(
    mut stream: TcpStream,
    network: &Arc<Network>,
    service: Service,
    streams: &Streams,
) -> io::Result<()> {
    stream.set_nodelay(true).map_err(io::Error::from)?;
    let mut received = Vec::new();
    let mut buffer = vec![0; 4096];
    loop {
        let request =
            parse_head(&received).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        let Some(request) = request else {
            match stream.read(&mut buffer).await? {
                0 => return Ok(()),
                read => received.extend_from_slice(&buffer[..read]),
            }
            continue;
        };
        match network.respond(service, &request) {
            Reply::Http(bytes) => stream.write_all(&bytes).await?,
            Reply::Stream(bytes, session) => {
                stream.write_all(&bytes).await?;
                let early = received.split_off(request.len);
                return emit(stream, session, &early, streams).await;
            }
        }
        let len = request.len;
        received.drain(..len);
    }
}

/// What happens around a stream while its writer sleeps.
#[derive(Default)]
struct StreamSignals {
    /// Control frames to send.
    control: RefCell<Vec<u8>>,
    closed: Cell<bool>,
    notified: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl StreamSignals {
    fn notify(&self) {
        self.notified.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Waits for the next [`Self::notify`], or takes one that has been.
    async fn wait(&self) {
        poll_fn(|context| {
            if self.notified.replace(false) {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

async fn emit(
    stream: TcpStream,
    mut session: HostSession,
    early: &[u8],
    streams: &Streams,
) -> io::Result<()> {
    let signals = Rc::new(StreamSignals::default());
    streams.borrow_mut().push(Rc::downgrade(&signals));
    let (read_half, mut write_half) = split(stream);
    let mut reader = MessageReader::new(Peer::Client, 4096);
    reader.push(early);
    let answering = Rc::clone(&signals);
    spawn_local(async move {
        if let Err(error) = answer(read_half, reader, &answering).await {
            tracing::debug!("subscriber gone: {error}");
        }
        answering.closed.set(true);
        answering.notify();
    })
    .detach();
    emit_until_closed(&mut write_half, &mut session, &signals).await?;
    write_half.close().await
}

async fn emit_until_closed(
    stream: &mut WriteHalf<TcpStream>,
    session: &mut HostSession,
    signals: &StreamSignals,
) -> io::Result<()> {
    loop {
        let control = signals.control.take();
        if !control.is_empty() {
            stream.write_all(&control).await?;
        }
        if signals.closed.get() {
            return Ok(());
        }
        let now = clock::now_nanos();
        match session.step(now) {
            Step::Send(bytes) => {
                stream.write_all(bytes).await?;
                glommio::executor().yield_if_needed().await;
            }
            Step::Until(due) => {
                or(sleep(Duration::from_nanos(due - now)), signals.wait()).await;
            }
            Step::Held => signals.wait().await,
            Step::Close(bytes) => return stream.write_all(&bytes).await,
        }
    }
}

/// Reads what the subscriber sends, until it closes or breaks the protocol.
async fn answer(
    mut stream: ReadHalf<TcpStream>,
    mut reader: MessageReader,
    signals: &StreamSignals,
) -> io::Result<()> {
    loop {
        while let Some(message) =
            reader.poll_message().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?
        {
            let (answer, closing) = match message {
                Message::Ping(payload) => {
                    (wire::control_frame(wire::OP_PONG, payload, Peer::Server), false)
                }
                Message::Close(code, _) => (wire::close_frame(code, "", Peer::Server), true),
                Message::Binary(_) | Message::Text(_) | Message::Pong => continue,
            };
            signals.control.borrow_mut().extend(answer);
            signals.notify();
            if closing {
                return Ok(());
            }
        }
        match stream.read(reader.space()).await? {
            0 => return Ok(()),
            read => reader.filled(read),
        }
    }
}

async fn consume(order: ConsumerOrder) {
    if let Err(error) = consume_until_closed(&order).await {
        tracing::info!("consumer ended: {error}");
    }
    order.report.closed.store(true, Ordering::Release);
}

async fn consume_until_closed(order: &ConsumerOrder) -> io::Result<()> {
    let mut session = ConsumerSession::new(&order.url, &order.watch, Arc::clone(&order.report))
        .map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(order.address).await.map_err(io::Error::from)?;
    stream.set_nodelay(true).map_err(io::Error::from)?;
    loop {
        if let Some(bytes) = session.take_outbound() {
            stream.write_all(&bytes).await?;
        }
        match stream.read(session.space()).await? {
            0 => return Ok(()),
            read => session.handle_read(read, clock::now_nanos()).map_err(io::Error::other)?,
        }
        glommio::executor().yield_if_needed().await;
    }
}
