//! Upstream: reads the streams of PDS hosts.
//!
//! - *Runs on*: the host's home shard; one task reads a connection.
//! - *Takes*: connected sockets from control, and tickets that come back from the stages behind.
//! - *Gives*: [`RawFrame`]s towards the shards that own the accounts; refusals of what is no event.
//! - *Limits*: 5,000,000 bytes a message, 1,024 fragments; for each host the events and bytes in
//!   our hands ([`WindowLimits`]). A host above them is not read, and TCP pushes back. Above its
//!   event rates ([`Pace`]) what was read waits here, by account ([`FairQueue`]).
//! - *Invariants*: frames of an account are pushed in the order in which they came. An event that was
//!   admitted is pushed, even when its connection ends meanwhile. A frame that can't be read is
//!   stepped over; a broken WebSocket layer ends the connection.

mod connection;
mod fair;
mod frame;
mod handshake;
mod link;
mod outline;
mod pace;
mod read_size;
mod tls;
mod window;
mod ws;

pub use connection::{Admitted, Intake, Request, follow};
pub use fair::FairQueue;
pub use frame::{FrameOrigin, FrameOutline, RawFrame};
pub use link::{HostLink, LinkTimes};
pub use pace::Pace;
pub use read_size::ReadBuffers;
pub use tls::{TlsSession, client_config};
pub use window::{Admission, HostWindow, WindowLimits};
pub use ws::{WsFault, WsMessage, WsParser, WsSide, WsStep};
