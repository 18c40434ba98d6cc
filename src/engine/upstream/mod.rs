//! Reads frames from hosts.

mod frame;

pub use frame::{FrameOrigin, FrameOutline, RawFrame};
