//! What the data plane (`engine`) and the control plane (`control`) say to each other.
//!
//! The two crates do not know each other: they exchange these plain types through bounded rings.
//! There is no logic here beyond the rings themselves, no IO and no clock.

mod account;
mod host;
mod ids;
mod log;
mod message;
mod outcome;
mod owner;
pub mod ring;
mod status;

pub use account::*;
pub use host::*;
pub use ids::*;
pub use log::*;
pub use message::*;
pub use outcome::*;
pub use owner::owner_of;
pub use status::{Effective, effective};
