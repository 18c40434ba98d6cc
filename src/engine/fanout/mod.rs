//! Fan-out: sends the log to consumers.
//!
//! - *Runs on*: each shard for its own consumers; a task writes to one, a second one listens to it.
//! - *Takes*: sockets after the WebSocket handshake, slices of the log, the news that it has grown.
//! - *Gives*: the bytes of the log as they are, in pieces of at most 256 KiB; progress reports.
//! - *Limits*: a consumer that takes no byte for the stall time is let go, as is one whose place
//!   fell out of the window. What a client says is bounded and ignored, but for control frames.
//! - *Invariants*: a consumer is a place in the log, and nothing is queued for it. Nothing is put
//!   between the bytes of an event. No stream ends without a word, as far as the peer still reads.

mod client;
mod consumer;
mod link;

pub use consumer::{Feed, serve};
pub use link::{ConsumerLink, ConsumerTimes};
