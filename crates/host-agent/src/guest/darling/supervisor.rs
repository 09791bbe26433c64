//! Answers the calls that a slot's processes are asked about, each by the repair that it is for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::seccomp::{Call, Listener};
use super::{remark_repair, signal_repair};

/// Supervises one slot.
#[derive(Debug)]
pub(super) struct Supervisor {
    listener: Listener,
}

impl Supervisor {
    pub(super) fn new(listener: Listener) -> Self {
        Self { listener }
    }

    /// Readable when a call waits.
    pub(super) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Answers one call; to be used when the listener is readable.
    pub(super) fn answer(&self) -> io::Result<()> {
        let Some(asked) = self.listener.receive()? else { return Ok(()) };
        let done = match asked.call {
            Call::Kill(signal) => signal_repair::signal_caller(&self.listener, asked, signal).map(|()| 0),
            Call::Write(address) => remark_repair::is_remark(&self.listener, asked, address)
                .then_some(i64::from(remark_repair::LENGTH)),
        };
        match done {
            Some(value) => self.listener.done(asked, value),
            None => self.listener.let_happen(asked),
        }
        Ok(())
    }
}
