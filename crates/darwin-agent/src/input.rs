//! What the host sends for the process's stdin: one piece at a time, written by a thread of its own.
//!
//! The thread that reads the host's messages must never wait for a process that does not read, so it only leaves the
//! piece here. The host sends the next piece after `InputTaken`; more than one waiting is its mistake.
#![expect(unsafe_code, reason = "TIOCSWINSZ has no safe wrapper")]

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use protocol::ByteString;
use protocol::message::{FromAgent, TerminalSize};

use crate::outbox::Outbox;

/// Where input goes.
#[derive(Debug)]
pub enum Sink {
    /// The master of a pseudo-terminal; writes never wait.
    Terminal(File),
    /// A pipe; writes wait for the process.
    Pipe(File),
}

/// The way to the process's stdin. Dropped, it takes no more, and its thread ends.
#[derive(Debug)]
pub struct Input {
    shared: Arc<Shared>,
    terminal: Option<File>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Option<ByteString>,
    writing: bool,
    closed: bool,
}

impl Input {
    /// Starts the thread that writes to `sink` and tells the outbox of each piece it has written.
    pub fn start(sink: Sink, outbox: Arc<Outbox>) -> io::Result<Self> {
        let terminal = match &sink {
            Sink::Terminal(master) => Some(master.try_clone()?),
            Sink::Pipe(_) => None,
        };
        let shared = Arc::<Shared>::default();
        let theirs = shared.clone();
        thread::Builder::new()
            .name("input".into())
            .stack_size(128 << 10)
            .spawn(move || write_all(&theirs, sink, &outbox))?;
        Ok(Self { shared, terminal })
    }

    /// Takes a piece; `false` if the last one is still being written.
    #[must_use]
    pub fn take(&self, bytes: ByteString) -> bool {
        let mut state = self.shared.lock();
        if state.waiting.is_some() || state.writing {
            return false;
        }
        state.waiting = Some(bytes);
        self.shared.changed.notify_all();
        true
    }

    /// Tells the terminal its size; the kernel then tells the process (SIGWINCH). Without a terminal nothing happens.
    pub fn resize(&self, size: TerminalSize) {
        if let Some(terminal) = &self.terminal {
            // A size that can't be set is no reason to end a shell.
            let _ = set_size(terminal, size);
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a piece; `None` when no more comes.
    fn next(&self) -> Option<ByteString> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(bytes) = state.waiting.take() {
                state.writing = true;
                return Some(bytes);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Sets the size of the terminal that this is an end of.
pub fn set_size(terminal: &File, size: TerminalSize) -> io::Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open and the structure outlives the call, which only reads it.
    match unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn write_all(shared: &Shared, sink: Sink, outbox: &Outbox) {
    let mut sink = Some(sink);
    while let Some(bytes) = shared.next() {
        let goes_on = match &mut sink {
            None => false,
            Some(Sink::Terminal(master)) => write_to_terminal(master, &bytes).is_ok(),
            Some(Sink::Pipe(pipe)) => !bytes.is_empty() && pipe.write_all(&bytes).is_ok(),
        };
        if !goes_on {
            // The process, or whoever reads a pipe's other end, is gone: what comes now is thrown away.
            sink = None;
        }
        shared.lock().writing = false;
        outbox.reply(FromAgent::InputTaken);
    }
}

fn write_to_terminal(master: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match master.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut writable = [PollFd::new(master.as_fd(), PollFlags::POLLOUT)];
                poll(&mut writable, PollTimeout::NONE)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
