//! The `sshd` of each connection to a prefix that can be logged into.
//!
//! One `sshd -i` a connection, started by shellspawn, which passes the connection on. As a listener of its own Darling's
//! `sshd` drops everybody: the IP options of a connection, which it asks for, come back as rubbish. For the same
//! reason the connection must be a Unix socket.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use super::shellspawn::{self, Program};
use crate::guest::is_ready;
use crate::guest::login_streams::LoginStreams;
use crate::ssh::login;

/// Those that run.
#[derive(Debug, Default)]
pub(super) struct Logins {
    by_number: BTreeMap<u32, Sshd>,
}

#[derive(Debug)]
struct Sshd {
    /// shellspawn kills what it has started when this closes, and closes it when that has ended.
    shellspawn: UnixStream,
    /// Cut off with it.
    _streams: LoginStreams,
}

impl Logins {
    /// Has shellspawn, if it can be reached, start one.
    pub(super) fn start(
        &mut self,
        shellspawn: io::Result<UnixStream>,
        uid: u32,
        number: u32,
        streams: LoginStreams,
    ) {
        let program = Program {
            path: login::SSHD,
            arguments: &login::SSHD_ARGUMENTS,
            environment: &["PATH=/usr/bin:/bin:/usr/sbin:/sbin", "HOME=/var/empty", "LANG=C"],
            id: uid,
            streams: streams.standard(),
        };
        let started = shellspawn.and_then(|shellspawn| {
            shellspawn::start(&shellspawn, &program)?;
            Ok(shellspawn)
        });
        match started {
            Ok(shellspawn) => {
                self.by_number.insert(number, Sshd { shellspawn, _streams: streams });
            }
            Err(error) => streams.say(&error),
        }
    }

    /// Ends one, if it has not ended.
    pub(super) fn end(&mut self, number: u32) {
        self.by_number.remove(&number);
    }

    /// Readable when one has ended.
    pub(super) fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.by_number.values().map(|sshd| sshd.shellspawn.as_fd())
    }

    /// Forgets those that have ended.
    pub(super) fn forget_ended(&mut self) {
        self.by_number.retain(|_, sshd| !is_ready(sshd.shellspawn.as_fd()));
    }
}
