//! Fan-out: sends the log to consumers.
//!
//! - *Runs on*: each shard for its own consumers; a task writes to one, a second one listens to it. Whoever
//!   replays is sent to by threads beside, which leave the processor to all others.
//! - *Takes*: sockets after the WebSocket handshake, slices of the log, the news that it has grown.
//! - *Gives*: the bytes of the log as they are, in pieces of at most 256 KiB; progress reports.
//! - *Limits*: a consumer that takes no byte for the stall time is let go, as is one who was live and
//!   whose place fell out of the window. Those who replay get a megabyte each in turn. What a client
//!   says is bounded and ignored, but for control frames.
//! - *Invariants*: a consumer is a place in the log, and nothing is queued for it but the rest of an
//!   event that was begun, or what was sent to all who are live: 64 KiB at most, one copy for all.
//!   Nothing is put between the bytes of an event. The shard never waits for the disk. No stream ends
//!   without a word, as far as the peer still reads.

mod client;
mod consumer;
mod events;
mod link;
mod live;
mod replay;

pub use consumer::{Feed, serve};
pub use link::{ConsumerLink, ConsumerTimes};
pub use live::LiveBytes;
pub use replay::Replay;
