//! The whole engine over real sockets: fake hosts and consumers, on both drivers.

mod consumers;
mod harness;
mod hosts;
mod tls;
