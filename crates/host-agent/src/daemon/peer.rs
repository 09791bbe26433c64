//! Who is at the other end of a connection.
//!
//! The kernel says so (SO_PEERCRED, unix(7)): the uid and gid that the peer had when it connected. Nothing that the peer sends
//! matters.

use std::io;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use tokio::net::UnixStream;

/// The uid that may do everything.
pub(super) const ROOT: u32 = 0;

/// Whoever has connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Peer {
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = getsockopt(stream, PeerCredentials)?;
        Ok(Self { uid: credentials.uid(), gid: credentials.gid() })
    }

    pub(super) fn is_root(self) -> bool {
        self.uid == ROOT
    }
}
