//! Answers the calls about which a slot's processes are asked.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::unistd::Pid;

use super::kill_everyone::Holders;
use super::questions::{Answer, Asked, Call, Listener};

/// Supervises what was started under one filter.
#[derive(Debug)]
pub struct Supervisor {
    listener: Listener,
    holders: Option<Holders>,
}

impl Supervisor {
    /// Nothing runs yet that was not started by the guest itself.
    pub fn new(listener: Listener) -> Self {
        Self { listener, holders: None }
    }

    /// The agent is there, so a builder can be; what runs now is not the builder's.
    pub fn agent_is(&mut self, agent: Pid) {
        self.holders = Some(Holders::now(agent));
    }

    /// Readable when a call waits.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Answers one call; to be used when the listener is readable. `guest` answers what only its guest asks about.
    pub fn answer(&self, guest: impl FnOnce(&Listener, Asked) -> Answer) -> io::Result<()> {
        let Some(asked) = self.listener.receive()? else { return Ok(()) };
        let answer = match (asked.call, &self.holders) {
            (Call::KillEveryone(signal), Some(holders)) => holders.signal_others(asked.thread, signal),
            (Call::KillEveryone(_), None) => Answer::LetHappen,
            (Call::KillGroup(_) | Call::Write(_), _) => guest(&self.listener, asked),
        };
        self.listener.answer(asked, answer);
        Ok(())
    }
}
