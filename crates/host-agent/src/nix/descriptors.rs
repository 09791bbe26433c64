//! The file descriptors that Nix gives a hook.
#![expect(unsafe_code, reason = "descriptors are handed over by number")]
//!
//! 0 brings the questions, 1 and 2 are one pipe for replies and messages, 4 takes the builder's output, and 5 is the
//! other end of 4's pipe. Whatever else Nix leaks (3 is a handle of the original mount namespace) must not reach the
//! programs we start. Nix reads 4 only until 1 and 2 are closed, so what is still in that pipe when we exit is lost:
//! [`BuildLog::drain`] waits until there is nothing.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use ::nix::fcntl::{FcntlArg, FdFlag, fcntl};
use ::nix::sys::stat::{SFlag, fstat};
use thiserror::Error;

/// Longest wait for Nix to read on while it reads nothing.
const DRAIN_STALL_MAX: Duration = Duration::from_secs(10);
const DRAIN_INTERVAL: Duration = Duration::from_millis(1);

/// Why the descriptors are not those of a hook.
#[derive(Debug, Error)]
pub enum DescriptorError {
    /// One of them is not open.
    #[error(
        "file descriptor {0} is not open: a build hook is started by Nix, through its `build-hook` setting, and not by hand"
    )]
    NotOpen(RawFd),
    /// Marking them failed.
    #[error("failed to keep leaked file descriptors from child processes: {0}")]
    Leaks(io::Error),
}

/// What a hook talks over.
#[derive(Debug)]
pub struct Descriptors {
    /// Questions from Nix.
    pub questions: File,
    /// Replies and messages to Nix.
    pub replies: File,
    /// The builder's output, and its pipe's other end.
    pub log: BuildLog,
}

impl Descriptors {
    /// Takes them over; once a process.
    pub fn claim() -> Result<Self, DescriptorError> {
        // By number first, before anything that is opened here can take such a number.
        let log = BuildLog { to: claim(4)?.into(), other_end: claim(5).ok(), at_line_start: true };
        // Copies: the standard streams themselves stay open until the process ends, because closing them would tell Nix
        // that the build is over.
        let copy = |stream: BorrowedFd<'_>| stream.try_clone_to_owned().map(File::from);
        let this = Self {
            questions: copy(io::stdin().as_fd()).map_err(|_| DescriptorError::NotOpen(0))?,
            replies: copy(io::stderr().as_fd()).map_err(|_| DescriptorError::NotOpen(2))?,
            log,
        };
        keep_from_children(3..=3)
            .and_then(|()| keep_from_children(4..=RawFd::MAX))
            .map_err(DescriptorError::Leaks)?;
        Ok(this)
    }

    /// Whether standard output is a socket, as Lix 2.94 and later have it.
    pub fn output_is_socket() -> bool {
        // SAFETY: the descriptor is only borrowed for the call, which does not close it.
        let output = unsafe { BorrowedFd::borrow_raw(1) };
        fstat(output)
            .is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK)
    }
}

fn claim(fd: RawFd) -> Result<OwnedFd, DescriptorError> {
    // SAFETY: the descriptor is only borrowed for the call, which reports one that is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(borrowed, FcntlArg::F_GETFD).map_err(|_| DescriptorError::NotOpen(fd))?;
    // SAFETY: it is open, was given to this process by number, and is claimed before anything else was opened; nothing
    // else here owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes these descriptors in every program that is started from here.
fn keep_from_children(range: std::ops::RangeInclusive<RawFd>) -> io::Result<()> {
    // SAFETY: with this flag the call only changes flags of descriptors; it touches no memory.
    let result = unsafe {
        libc::syscall(libc::SYS_close_range, *range.start(), *range.end(), libc::CLOSE_RANGE_CLOEXEC)
    };
    if result == 0 {
        return Ok(());
    }
    // Linux before 5.11 does not have the call.
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let fd = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(fd) = fd.filter(|fd| range.contains(fd)) {
            // SAFETY: the descriptor is only borrowed for the call; if it is gone by now, that is reported.
            let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
            let _ = fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
        }
    }
    Ok(())
}

/// Where a builder's output goes.
#[derive(Debug)]
pub struct BuildLog {
    to: File,
    other_end: Option<OwnedFd>,
    at_line_start: bool,
}

impl BuildLog {
    /// A log whose other end is with Nix alone.
    pub fn to(file: File) -> Self {
        Self { to: file, other_end: None, at_line_start: true }
    }

    /// Passes on what a builder printed, unchanged.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(last) = bytes.last() {
            self.at_line_start = *last == b'\n';
        }
        self.to.write_all(bytes)
    }

    /// Adds a line of our own, after whatever line the builder has begun.
    pub fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        let before: &[u8] = if self.at_line_start { b"" } else { b"\n" };
        self.write(&[before, line, b"\n"].concat())
    }

    /// Closes the end that only Nix should read: while it is open here, a Nix that is gone goes unnoticed.
    pub fn leave_reading_to_nix(&mut self) {
        self.other_end = None;
    }

    /// Lets the next program that is started inherit both ends, or none again.
    pub fn share_with_children(&self, share: bool) -> io::Result<()> {
        let flags = if share { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
        fcntl(&self.to, FcntlArg::F_SETFD(flags))?;
        if let Some(other_end) = &self.other_end {
            fcntl(other_end, FcntlArg::F_SETFD(flags))?;
        }
        Ok(())
    }

    /// Waits until Nix has read everything, or reads nothing for ten seconds.
    pub fn drain(&self) {
        let mut last = unread(&self.to);
        let mut since = Instant::now();
        while last > 0 && since.elapsed() < DRAIN_STALL_MAX {
            std::thread::sleep(DRAIN_INTERVAL);
            let now = unread(&self.to);
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
    }
}

fn unread(pipe: &File) -> libc::c_int {
    let mut count = 0;
    // SAFETY: FIONREAD writes one int to the pointer, which is to a live int.
    let result = unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &mut count) };
    if result == 0 { count } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn waits_until_the_other_side_has_read_everything() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut log = BuildLog { to: OwnedFd::from(writer).into(), other_end: None, at_line_start: true };
        log.write(&[b'x'; 60_000]).unwrap();
        let reading = std::thread::spawn(move || {
            let mut total = 0;
            let mut buffer = [0; 4096];
            while total < 60_000 {
                std::thread::sleep(Duration::from_millis(2));
                total += reader.read(&mut buffer).unwrap();
            }
            total
        });
        log.drain();
        assert_eq!(unread(&log.to), 0);
        assert_eq!(reading.join().unwrap(), 60_000);
    }

    #[test]
    fn own_lines_never_join_a_line_of_the_builder() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut log = BuildLog { to: OwnedFd::from(writer).into(), other_end: None, at_line_start: true };
        log.write_line(b"first").unwrap();
        log.write(b"half").unwrap();
        log.write_line(b"note").unwrap();
        log.write(b"whole\n").unwrap();
        log.write_line(b"last").unwrap();
        drop(log);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "first\nhalf\nnote\nwhole\nlast\n");
    }
}
