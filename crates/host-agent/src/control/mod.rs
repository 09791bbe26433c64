//! The words between front ends and daemon, over the daemon's Unix socket.
//!
//! Frames as in [`protocol::frame`]. A closed connection means: whoever asked is gone, end the build and forget it.

pub mod client;
pub mod message;
pub mod shell;
pub mod stream;
