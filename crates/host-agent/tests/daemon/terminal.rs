//! A terminal of our own, for programs that want one.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

use crate::harness::LIMIT;

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// A program on a terminal of our own.
pub struct OnTerminal {
    pub child: Child,
    master: File,
    slave: OwnedFd,
    /// What has come and was not asked for yet.
    pub seen: Vec<u8>,
}

impl OnTerminal {
    /// Starts it on one of 40 lines and 100 columns.
    pub fn start(command: &mut Command) -> Self {
        let pty = openpty(&size(40, 100), None).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let child = command.env("TERM", "vt100").stdin(end()).stdout(end()).stderr(end()).spawn();
        Self { child: child.unwrap(), master: pty.master.into(), slave: pty.slave, seen: Vec::new() }
    }

    pub fn types(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Reads until `text` has come since the last call.
    pub fn shows(&mut self, text: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(at) = self.seen.windows(text.len()).position(|window| window == text.as_bytes()) {
                self.seen.drain(..at + text.len());
                return;
            }
            let shown = String::from_utf8_lossy(&self.seen).into_owned();
            assert!(Instant::now() < deadline, "waited in vain for {text:?}: {shown:?}");
            let mut ready = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, PollTimeout::from(100u8)).unwrap() > 0 {
                let mut buffer = [0; 4096];
                let read = self.master.read(&mut buffer).unwrap();
                self.seen.extend_from_slice(&buffer[..read]);
            }
        }
    }

    /// Gives the terminal another size, and tells the program.
    #[allow(unsafe_code)]
    pub fn resize(&mut self, rows: u16, columns: u16) {
        // SAFETY: the structure outlives the call.
        let set = unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &size(rows, columns)) };
        assert_eq!(set, 0);
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGWINCH).unwrap();
    }

    pub fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave).unwrap().local_flags.contains(LocalFlags::ICANON)
    }

    pub fn ends(&mut self) -> ExitStatus {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the shell does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
