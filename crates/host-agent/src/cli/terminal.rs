//! The user's terminal while a shell has it: raw, with its size, and given back whatever happens.

#![expect(unsafe_code, reason = "TIOCGWINSZ has no safe wrapper")]

use std::io::{self, Stdin};
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use protocol::message::TerminalSize;

/// A terminal in raw mode: every key goes to the shell, Ctrl-C too. Back in its former mode when dropped.
pub(super) struct RawTerminal {
    stdin: Stdin,
    before: Termios,
    signals: SignalFd,
}

impl RawTerminal {
    /// Puts the terminal of stdin into raw mode. From now on signals are read by [`signal`](Self::signal), so that none ends
    /// this program before the terminal is given back.
    pub(super) fn take() -> io::Result<Self> {
        let mut watched = SigSet::empty();
        for signal in [Signal::SIGWINCH, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
            watched.add(signal);
        }
        watched.thread_block()?;
        let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let stdin = io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSADRAIN, &raw)?;
        Ok(Self { stdin, before, signals })
    }

    /// Readable when there is a signal.
    pub(super) fn signals(&self) -> impl AsFd {
        self.signals.as_fd()
    }

    /// The next signal, if there is one.
    pub(super) fn signal(&self) -> Option<Signal> {
        let info = self.signals.read_signal().ok()??;
        Signal::try_from(info.ssi_signo as i32).ok()
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.stdin, SetArg::TCSADRAIN, &self.before);
    }
}

/// Size of the terminal that stdin is; a terminal that does not know its own (a serial line) counts as 24 by 80.
pub(super) fn size() -> TerminalSize {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the structure is local and outlives the call, which fills it or leaves it alone.
    unsafe { libc::ioctl(io::stdin().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    match (size.ws_row, size.ws_col) {
        (0, _) | (_, 0) => TerminalSize { rows: 24, columns: 80 },
        (rows, columns) => TerminalSize { rows, columns },
    }
}
