//! Reads frames from hosts.

mod frame;
mod window;
mod ws;

pub use frame::{FrameOrigin, FrameOutline, RawFrame};
pub use window::{Admission, HostWindow, WindowLimits};
pub use ws::{WsFault, WsMessage, WsParser, WsSide, WsStep};
