//! One connection to a host: a task that reads until there is nothing more to read.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use ports::{HostFault, HostId, HostSeq, Refusal, RefusalReason};
use tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};

use super::{
    FrameOrigin, FrameOutline, HostLink, RawFrame, WsFault, WsMessage, WsParser, WsSide, WsStep,
    handshake::{Handshake, HandshakeStep},
    outline::{Outlined, outline},
    read_size::{ReadBuffers, ReadSize},
};
use crate::rt::{self, Signal, SocketReader, SocketWriter};

/// A reader that was never made to wait lets the others run after so many bytes.
const TURN_BYTES: usize = 256 << 10;

/// What a connection needs of its shard.
pub trait Intake {
    /// Decides on an event by its host and number.
    fn admit(&self, host: HostId, outline: &FrameOutline, bytes: usize) -> Admitted;
    /// Gives a frame back that may go on now. Otherwise it is kept, and goes on when the host's event
    /// rates allow it.
    fn pace(&self, frame: RawFrame) -> Option<RawFrame>;
    /// Hands a frame towards the shard that owns its account, or gives it back if there is no room.
    ///
    /// # Errors
    /// There is no room: wait for [`Intake::room`].
    fn push(&self, frame: RawFrame) -> Result<(), RawFrame>;
    /// Wakes those that were pushed to. Once for a batch.
    fn flush(&self);
    /// Happens whenever a push may find room again, and when the shard stops.
    fn room(&self) -> &Signal;
    /// Counts a frame that ends here.
    fn refuse(&self, refusal: Refusal);
    /// Nothing is to be pushed any more.
    fn is_stopping(&self) -> bool;
    /// The host goes on below its last number.
    fn turn_back(&self, host: HostId);
    /// The handshake is done.
    fn note_open(&self, host: HostId);
    fn home(&self) -> ports::ShardId;
    /// Memory of the shard to read into.
    fn buffers(&self) -> &ReadBuffers;
}

/// What becomes of an event by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// `rewound`: see [`FrameOrigin`].
    Ticket {
        ticket: u64,
        rewound: bool,
    },
    Refused(RefusalReason),
    /// Its number is not above the last one.
    Behind,
    /// The host has too much in our hands: wait for [`HostLink::room`], then ask again.
    Full,
}

/// What to ask the host for.
#[derive(Debug)]
pub struct Request {
    pub hostname: Box<str>,
    pub cursor: Option<HostSeq>,
    pub user_agent: Box<str>,
    pub message_bytes_max: usize,
}

/// Follows the host's stream until it ends, and says why it ended.
pub async fn follow<I: Intake>(
    intake: Rc<I>,
    link: Rc<HostLink>,
    socket: (SocketReader, SocketWriter),
    request: Request,
) -> HostFault {
    let (reader, writer) = socket;
    let mut connection = Connection {
        intake,
        parser: WsParser::new(WsSide::Server, request.message_bytes_max),
        link: Rc::clone(&link),
        reader,
        cipher: BytesMut::new(),
        size: ReadSize::default(),
        unyielded: 0,
        stray: None,
    };
    let Err(fault) = connection.run(&request).await;
    connection.refuse_stray();
    // What ended it on our side comes before what the reader saw of that.
    let fault = link.take_fault().unwrap_or(fault);
    link.end(fault.clone());
    drop(writer);
    fault
}

struct Connection<I> {
    intake: Rc<I>,
    link: Rc<HostLink>,
    reader: SocketReader,
    parser: WsParser,
    /// Ciphertext as it came; without TLS it stays empty.
    cipher: BytesMut,
    size: ReadSize,
    unyielded: usize,
    /// An event whose number is not above the one before. The next one tells whether it is alone, and
    /// to be refused, or the host has gone back.
    stray: Option<(FrameOutline, Bytes)>,
}

enum Never {}

impl<I: Intake> Connection<I> {
    async fn run(&mut self, request: &Request) -> Result<Never, HostFault> {
        let mut buffer = BytesMut::new();
        self.open(request, &mut buffer).await?;
        self.link.note_open(rt::now());
        self.intake.note_open(self.link.host());
        loop {
            let wanted = self.take_messages(&mut buffer).await?;
            buffer = self.read(buffer, wanted).await?;
        }
    }

    async fn open(&mut self, request: &Request, buffer: &mut BytesMut) -> Result<(), HostFault> {
        let mut out = Vec::new();
        let agent = &request.user_agent;
        let mut shake = Handshake::start(&request.hostname, request.cursor, agent, &mut out)?;
        self.link.write(&out);
        loop {
            *buffer = self.read(std::mem::take(buffer), 0).await.map_err(|fault| match fault {
                HostFault::Closed => self.closed_while_opening(),
                other => other,
            })?;
            shake = match shake.handle(buffer)? {
                HandshakeStep::More(shake) => shake,
                HandshakeStep::Done => return Ok(()),
            };
        }
    }

    fn closed_while_opening(&self) -> HostFault {
        match self.link.tls().borrow().as_ref() {
            Some(session) if session.is_handshaking() => {
                HostFault::Tls("closed during the handshake".into())
            }
            _ => HostFault::Handshake { status: 0 },
        }
    }

    /// Adds at least one byte to the buffer, which is to become `wanted` long.
    async fn read(&mut self, buffer: BytesMut, wanted: usize) -> Result<BytesMut, HostFault> {
        if self.link.tls().borrow().is_some() {
            return self.read_tls(buffer).await;
        }
        self.read_socket(buffer, wanted).await
    }

    async fn read_tls(&mut self, mut plain: BytesMut) -> Result<BytesMut, HostFault> {
        let before = plain.len();
        while plain.len() == before {
            let cipher = std::mem::take(&mut self.cipher);
            self.cipher = self.read_socket(cipher, 0).await?;
            self.decrypt(&mut plain)?;
        }
        Ok(plain)
    }

    async fn read_socket(
        &mut self,
        mut target: BytesMut,
        wanted: usize,
    ) -> Result<BytesMut, HostFault> {
        if self.unyielded >= TURN_BYTES {
            self.unyielded = 0;
            rt::yield_now().await;
        }
        self.size.make_room(&mut target, wanted, self.intake.buffers());
        let room = target.capacity() - target.len();
        let (result, target) = self.reader.read(target).await;
        match result {
            Ok(0) => Err(HostFault::Closed),
            Ok(count) => {
                self.size.note(count, room);
                self.unyielded += count;
                self.link.note_heard(rt::now());
                Ok(target)
            }
            Err(error) => Err(HostFault::Io(error.to_string().into())),
        }
    }

    fn decrypt(&mut self, plain: &mut BytesMut) -> Result<(), HostFault> {
        let read = match self.link.tls().borrow_mut().as_mut() {
            Some(session) => session.read(&self.cipher, plain),
            None => Ok(()),
        };
        self.cipher.clear();
        // The handshake's answers, or the alert that says what is wrong.
        self.link.flush();
        read
    }

    /// Takes all messages out of the buffer; returns how long it must become for the next one.
    async fn take_messages(&mut self, buffer: &mut BytesMut) -> Result<usize, HostFault> {
        let result = loop {
            match self.parser.next(buffer) {
                Ok(WsStep::More { wanted }) => break Ok(wanted),
                Ok(WsStep::Message(message)) => {
                    if let Err(fault) = self.take_message(message).await {
                        break Err(fault);
                    }
                }
                Err(fault) => break Err(self.broken(fault)),
            }
        };
        self.intake.flush();
        result
    }

    async fn take_message(&mut self, message: WsMessage) -> Result<(), HostFault> {
        match message {
            WsMessage::Binary(frame) => self.take_frame(frame).await,
            WsMessage::Text => {
                self.refuse(None, RefusalReason::FrameText);
                Ok(())
            }
            WsMessage::TooLarge => {
                self.refuse(None, RefusalReason::FrameTooLarge);
                Ok(())
            }
            WsMessage::Ping(payload) => {
                self.link.pong(payload);
                Ok(())
            }
            WsMessage::Pong => Ok(()),
            WsMessage::Close => {
                self.link.close(None);
                Err(HostFault::Closed)
            }
        }
    }

    async fn take_frame(&mut self, frame: Bytes) -> Result<(), HostFault> {
        match outline(&frame) {
            Outlined::Event(event) => self.take_event(event, frame).await,
            Outlined::Info => Ok(()),
            Outlined::Error(name) => {
                self.link.close(None);
                Err(HostFault::ErrorFrame(name))
            }
            Outlined::Refused(reason) => {
                self.refuse(None, reason);
                Ok(())
            }
        }
    }

    async fn take_event(&mut self, event: FrameOutline, frame: Bytes) -> Result<(), HostFault> {
        if self.admit(&event, &frame).await? {
            self.refuse_stray();
            return Ok(());
        }
        match self.stray.take_if(|(stray, _)| stray.host_seq < event.host_seq) {
            Some((first, bytes)) => {
                self.intake.turn_back(self.link.host());
                self.admit(&first, &bytes).await?;
                self.admit(&event, &frame).await?;
            }
            None => {
                self.refuse_stray();
                self.stray = Some((event, frame));
            }
        }
        Ok(())
    }

    fn refuse_stray(&mut self) {
        if let Some((event, frame)) = self.stray.take() {
            self.refuse(Some((&event, &frame)), RefusalReason::SeqOrder);
        }
    }

    /// Takes an event, or refuses it by its number; false if that is not above the last one.
    ///
    /// An error here means that the connection is ending: an event that was not admitted must not
    /// be followed by one that is.
    async fn admit(&self, event: &FrameOutline, frame: &Bytes) -> Result<bool, HostFault> {
        let link = Rc::clone(&self.link);
        loop {
            let seen = link.room().count();
            match self.intake.admit(link.host(), event, frame.len()) {
                Admitted::Ticket { ticket, rewound } => {
                    self.hand_on(event, frame, ticket, rewound).await?;
                    return Ok(true);
                }
                Admitted::Refused(reason) => {
                    self.refuse(Some((event, frame)), reason);
                    return Ok(true);
                }
                Admitted::Behind => return Ok(false),
                Admitted::Full if link.is_ending() => return Err(HostFault::Stopped),
                Admitted::Full => self.wait_for(link.room(), seen).await,
            }
        }
    }

    async fn hand_on(
        &self,
        event: &FrameOutline,
        frame: &Bytes,
        ticket: u64,
        rewound: bool,
    ) -> Result<(), HostFault> {
        self.link.note_progress();
        let origin = FrameOrigin {
            host: self.link.host(),
            home: self.intake.home(),
            strictness: self.link.strictness(),
            rewound,
        };
        let raw = RawFrame::new(origin, ticket, event.clone(), frame.clone());
        let Some(mut raw) = self.intake.pace(raw) else { return Ok(()) };
        let intake = Rc::clone(&self.intake);
        loop {
            let seen = intake.room().count();
            raw = match intake.push(raw) {
                Ok(()) => return Ok(()),
                Err(_) if intake.is_stopping() => return Err(HostFault::Stopped),
                // The window waits for this event: it goes on even if the connection does not.
                Err(raw) => raw,
            };
            self.wait_for(intake.room(), seen).await;
        }
    }

    /// While this waits, the socket is not read and TCP pushes back.
    async fn wait_for(&self, room: &Signal, seen: u64) {
        self.intake.flush();
        self.link.set_paused(true, rt::now());
        room.past(seen).await;
        self.link.set_paused(false, rt::now());
    }

    fn broken(&mut self, fault: WsFault) -> HostFault {
        let code = match fault {
            WsFault::TooLarge => CloseCode::Size,
            WsFault::Protocol(_) => CloseCode::Protocol,
        };
        self.link.close(Some(CloseFrame { code, reason: "".into() }));
        match fault {
            WsFault::TooLarge => {
                self.refuse(None, RefusalReason::FrameTooLarge);
                HostFault::TooLarge
            }
            WsFault::Protocol(what) => HostFault::Protocol(what),
        }
    }

    fn refuse(&self, event: Option<(&FrameOutline, &Bytes)>, reason: RefusalReason) {
        let did = event.and_then(|(event, frame)| {
            let did = frame.get(event.did.start as usize..event.did.end as usize)?;
            std::str::from_utf8(did).ok().map(Box::from)
        });
        self.intake.refuse(Refusal {
            host: self.link.host(),
            host_seq: event.map(|(event, _)| event.host_seq),
            kind: event.map(|(event, _)| event.kind),
            did,
            reason,
        });
    }
}
