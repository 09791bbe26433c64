//! What the Linux side (`host-agent`) and the guest side (`darwin-agent`) say to each other.
//!
//! Pure: no I/O beyond [`std::io::Read`] and [`std::io::Write`], no threads, no platform calls, so that the same
//! code serves a Linux program and a Mach-O one. `docs/protocol.md` describes the bytes.

mod bounded;
pub mod bytes;
pub mod frame;
pub mod hello;
pub mod limits;
pub mod message;
pub mod printable;

pub use bytes::ByteString;
pub use printable::Printable;
