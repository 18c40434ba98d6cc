//! A consumer of the relay's firehose, on a thread of its own, that keeps all it gets.

use std::{
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Instant,
};

use protocol::frame::{self, Event, Skim};
use tungstenite::{Error, Message, client::IntoClientRequest};

use super::patience;

#[derive(Default)]
struct Heard {
    frames: Vec<Vec<u8>>,
    end: Option<String>,
}

pub struct Consumer {
    heard: Arc<(Mutex<Heard>, Condvar)>,
    stream: TcpStream,
}

impl Consumer {
    /// Connects to `subscribeRepos`, with a cursor if there is one.
    ///
    /// # Panics
    /// If the relay refuses.
    pub fn connect(api: SocketAddr, cursor: Option<u64>) -> Self {
        let query = cursor.map_or_else(String::new, |cursor| format!("?cursor={cursor}"));
        let url = format!("ws://{api}/xrpc/com.atproto.sync.subscribeRepos{query}");
        let stream = TcpStream::connect(api).unwrap();
        stream.set_nodelay(true).unwrap();
        let request = url.into_client_request().unwrap();
        let config = tungstenite::protocol::WebSocketConfig::default()
            .max_message_size(Some(16 << 20))
            .max_frame_size(Some(16 << 20));
        let (mut websocket, _) = tungstenite::client::client_with_config(
            request,
            stream.try_clone().unwrap(),
            Some(config),
        )
        .unwrap();
        let heard = Arc::new((Mutex::new(Heard::default()), Condvar::new()));
        let telling = Arc::clone(&heard);
        thread::spawn(move || {
            loop {
                let message = websocket.read();
                let mut heard = telling.0.lock().unwrap();
                match message {
                    Ok(Message::Binary(bytes)) => heard.frames.push(bytes.to_vec()),
                    Ok(Message::Close(frame)) => {
                        heard.end = Some(frame.map_or_else(String::new, |f| {
                            format!("{} {}", u16::from(f.code), f.reason)
                        }));
                    }
                    Ok(_) => {}
                    Err(error) => {
                        let closed = matches!(error, Error::ConnectionClosed);
                        if heard.end.is_none() || !closed {
                            heard.end.get_or_insert_with(|| error.to_string());
                        }
                        telling.1.notify_all();
                        return;
                    }
                }
                telling.1.notify_all();
            }
        });
        Self { heard, stream }
    }

    /// All frames so far.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        self.heard.0.lock().unwrap().frames.clone()
    }

    pub fn count(&self) -> usize {
        self.heard.0.lock().unwrap().frames.len()
    }

    /// Waits for at least `count` frames in all and gives them.
    ///
    /// # Panics
    /// When the patience is over or the stream has ended before.
    pub fn wait_for(&self, count: usize) -> Vec<Vec<u8>> {
        self.wait_until(&format!("{count} frames"), |frames| frames.len() >= count)
    }

    /// Waits until the frames so far satisfy the condition; patience begins anew with each frame.
    ///
    /// # Panics
    /// When the patience is over or the stream has ended before.
    pub fn wait_until(&self, what: &str, done: impl Fn(&[Vec<u8>]) -> bool) -> Vec<Vec<u8>> {
        let mut heard = self.heard.0.lock().unwrap();
        let mut count = heard.frames.len();
        let mut deadline = Instant::now() + patience();
        while !done(&heard.frames) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero() && heard.end.is_none(),
                "waited in vain for {what}: {} frames, ended: {:?}, last: {:?}",
                heard.frames.len(),
                heard.end,
                heard.frames.last().map(|frame| describe(frame)),
            );
            heard = self.heard.1.wait_timeout(heard, left).unwrap().0;
            if heard.frames.len() != count {
                count = heard.frames.len();
                deadline = Instant::now() + patience();
            }
        }
        heard.frames.clone()
    }

    /// Waits for the end of the stream: close code and reason, or the error.
    ///
    /// # Panics
    /// When the patience is over.
    pub fn wait_for_end(&self) -> String {
        let heard = self.heard.0.lock().unwrap();
        let (heard, timeout) = self
            .heard
            .1
            .wait_timeout_while(heard, patience(), |heard| heard.end.is_none())
            .unwrap();
        assert!(!timeout.timed_out(), "the stream did not end");
        heard.end.clone().unwrap()
    }

    pub fn ended(&self) -> bool {
        self.heard.0.lock().unwrap().end.is_some()
    }

    pub fn hang_up(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.hang_up();
    }
}

/// # Panics
/// If the frame is not a well-formed event.
pub fn event(frame: &[u8]) -> Event<'_> {
    frame::parse(frame).unwrap_or_else(|e| panic!("{e:?} in {}", describe(frame)))
}

/// `seq did kind`, for messages of failing tests.
pub fn describe(frame: &[u8]) -> String {
    match frame::skim(frame) {
        Ok(Skim::Event { kind, did, seq }) => format!("{seq} {did} {kind:?}"),
        Ok(other) => format!("{other:?}"),
        Err(error) => format!("{error:?}"),
    }
}

/// The frame with its seq taken out: what must pass through unchanged.
pub fn without_seq(frame: &[u8]) -> Vec<u8> {
    let span = event(frame).seq_span;
    [&frame[..span.start], &frame[span.end..]].concat()
}
