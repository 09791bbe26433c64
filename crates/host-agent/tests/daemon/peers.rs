//! Peers of any uid that say what they like: connections as the daemon sees them, without another program.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use host_agent::control::message::{CONTROL_VERSION, FromDaemon, FrontEndName, REQUEST_PART, ToDaemon};
use host_agent::request::{BuildReport, BuildRequest};
use protocol::frame;

use crate::harness::{Daemon, LIMIT, as_user};

/// Makes these connections as this user; less than `count` if the daemon's queue of connections is full.
pub fn connect_as(daemon: &Daemon, uid: u32, count: usize) -> Vec<UnixStream> {
    daemon.let_others_in();
    let socket = daemon.socket();
    as_user(uid, || (0..count).map_while(|_| UnixStream::connect(&socket).ok()).collect())
}

/// A peer that speaks the daemon's protocol.
pub struct Peer(pub UnixStream);

impl Peer {
    /// Connects and says nothing.
    pub fn silent(daemon: &Daemon, uid: u32) -> Self {
        let stream = connect_as(daemon, uid, 1).pop().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        Self(stream)
    }

    /// Connects and greets.
    pub fn new(daemon: &Daemon, uid: u32) -> Self {
        let mut peer = Self::silent(daemon, uid);
        let front_end = FrontEndName::parse("peer").unwrap();
        peer.say(&ToDaemon::Hello { version: CONTROL_VERSION, front_end });
        assert!(matches!(peer.hear(), Some(FromDaemon::Hello { .. })));
        peer
    }

    /// Asks for a place.
    pub fn reserve(&mut self) -> FromDaemon {
        self.say(&ToDaemon::Reserve);
        self.hear().unwrap()
    }

    /// Connects and reserves a place, which there must be.
    pub fn with_place(daemon: &Daemon, uid: u32) -> Self {
        let mut peer = Self::new(daemon, uid);
        let answer = peer.reserve();
        assert!(matches!(answer, FromDaemon::Reserved { .. }), "{answer:?}");
        peer
    }

    /// Connects and asks for a build.
    pub fn submit(daemon: &Daemon, uid: u32, request: &BuildRequest) -> Self {
        let mut peer = Self::with_place(daemon, uid);
        for part in frame::encode_large(request).unwrap().chunks(REQUEST_PART) {
            peer.say(&ToDaemon::RequestPart(part.into()));
        }
        peer.say(&ToDaemon::RequestEnd);
        peer
    }

    /// Builds; with a limit for every step, unlike a front end.
    pub fn build(daemon: &Daemon, uid: u32, request: &BuildRequest) -> BuildReport {
        Self::submit(daemon, uid, request).report()
    }

    /// Waits for the end of its build.
    pub fn report(&mut self) -> BuildReport {
        loop {
            if let FromDaemon::Finished(report) = self.hear().unwrap() {
                return report;
            }
        }
    }

    pub fn say(&mut self, message: &ToDaemon) {
        // The daemon may have closed already, and said why.
        let _ = frame::write(&mut self.0, message);
    }

    /// Says something that is no message of ours.
    pub fn say_bytes(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// The next message; `None` at the end.
    pub fn hear(&mut self) -> Option<FromDaemon> {
        frame::read(&mut self.0).ok().flatten()
    }

    /// The next message of this kind.
    pub fn hear_until(&mut self, wanted: impl Fn(&FromDaemon) -> bool) -> FromDaemon {
        loop {
            let message = self.hear().unwrap();
            if wanted(&message) {
                return message;
            }
        }
    }

    /// Why it was refused, which must be the last that it is told.
    pub fn refusal(&mut self) -> String {
        let Some(FromDaemon::Refused(reason)) = self.hear() else { panic!("not refused") };
        assert_eq!(self.0.read(&mut [0]).unwrap_or(0), 0);
        reason
    }

    /// Whether the daemon still has the connection.
    pub fn is_open(&self) -> bool {
        self.0.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let read = (&self.0).read(&mut [0]);
        self.0.set_read_timeout(Some(LIMIT)).unwrap();
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }
}
