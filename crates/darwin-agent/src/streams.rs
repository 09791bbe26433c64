//! The process's standard streams: a pseudo-terminal as Nix makes it, or two pipes; for a shell, the same with input.
#![cfg_attr(target_os = "macos", expect(unsafe_code, reason = "ptsname has no safe wrapper here"))]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::pty::{PtyMaster, grantpt, posix_openpt, unlockpt};
use nix::sys::termios::{InputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use protocol::message::{Stream, Streams};

use crate::child::StandardStreams;
use crate::input::{Sink, set_size};

/// Where the process's output comes out.
#[derive(Debug)]
pub struct Source {
    /// What to call it.
    pub stream: Stream,
    /// Reads never wait.
    pub file: File,
}

/// What was being done when making the streams failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamsError {
    /// The call.
    pub step: &'static str,
    /// errno.
    pub errno: i32,
}

/// Both ends.
#[derive(Debug)]
pub struct Opened {
    /// The process's.
    pub theirs: StandardStreams,
    /// Where its output comes out.
    pub sources: Vec<Source>,
    /// Where its input goes in, if it has any.
    pub sink: Option<Sink>,
}

/// Makes them.
pub fn open(kind: Streams) -> Result<Opened, StreamsError> {
    match kind {
        Streams::Pty => {
            let (master, slave) = pseudo_terminal(cfmakeraw)?;
            let theirs = StandardStreams { stdin: nothing()?, stdout: again(&slave)?, stderr: slave };
            Ok(Opened { theirs, sources: vec![source(Stream::Pty, master)?], sink: None })
        }
        Streams::Pipes => {
            let (theirs, sources) = pipes(nothing()?)?;
            Ok(Opened { theirs, sources, sink: None })
        }
        Streams::Terminal(size) => {
            // Cooked as a new one is; a backspace over a character of several bytes removes all of them.
            let (master, slave) = pseudo_terminal(|mode| mode.input_flags.insert(InputFlags::IUTF8))?;
            let master = File::from(master);
            set_size(&master, size).map_err(at("ioctl TIOCSWINSZ"))?;
            let sink = Sink::Terminal(master.try_clone().map_err(at("dup of the pseudo-terminal"))?);
            let theirs = StandardStreams { stdin: again(&slave)?, stdout: again(&slave)?, stderr: slave };
            Ok(Opened { theirs, sources: vec![source(Stream::Pty, master.into())?], sink: Some(sink) })
        }
        Streams::PipesWithInput => {
            let (stdin, sink) = io::pipe().map_err(at("pipe"))?;
            let (theirs, sources) = pipes(stdin.into())?;
            Ok(Opened { theirs, sources, sink: Some(Sink::Pipe(OwnedFd::from(sink).into())) })
        }
    }
}

fn nothing() -> Result<OwnedFd, StreamsError> {
    Ok(File::open("/dev/null").map_err(at("open /dev/null"))?.into())
}

fn again(fd: &OwnedFd) -> Result<OwnedFd, StreamsError> {
    fd.try_clone().map_err(at("dup of the pseudo-terminal"))
}

fn pipes(stdin: OwnedFd) -> Result<(StandardStreams, Vec<Source>), StreamsError> {
    let (stdout_read, stdout) = io::pipe().map_err(at("pipe"))?;
    let (stderr_read, stderr) = io::pipe().map_err(at("pipe"))?;
    let sources =
        vec![source(Stream::Stdout, stdout_read.into())?, source(Stream::Stderr, stderr_read.into())?];
    Ok((StandardStreams { stdin, stdout: stdout.into(), stderr: stderr.into() }, sources))
}

/// Master and slave. The slave's mode is set before anyone can write to it (for a build raw as Nix has it: no newline
/// translation, no echo), and opening it makes it nobody's controlling terminal.
fn pseudo_terminal(set_mode: impl FnOnce(&mut Termios)) -> Result<(OwnedFd, OwnedFd), StreamsError> {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY).map_err(errno_at("posix_openpt"))?;
    fcntl(&master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
        .map_err(errno_at("fcntl of the pseudo-terminal"))?;
    grantpt(&master).map_err(errno_at("grantpt"))?;
    unlockpt(&master).map_err(errno_at("unlockpt"))?;
    let name = slave_name(&master).map_err(errno_at("ptsname"))?;
    let slave: OwnedFd = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(name)
        .map_err(at("open of the pseudo-terminal"))?
        .into();
    let mut mode = tcgetattr(slave.as_fd()).map_err(errno_at("tcgetattr"))?;
    set_mode(&mut mode);
    tcsetattr(slave.as_fd(), SetArg::TCSANOW, &mode).map_err(errno_at("tcsetattr"))?;
    let master = master.as_fd().try_clone_to_owned().map_err(at("dup of the pseudo-terminal"))?;
    Ok((master, slave))
}

#[cfg(target_os = "linux")]
fn slave_name(master: &PtyMaster) -> Result<String, Errno> {
    nix::pty::ptsname_r(master)
}

#[cfg(target_os = "macos")]
fn slave_name(master: &PtyMaster) -> Result<String, Errno> {
    // SAFETY: the static buffer is copied at once and no other thread of this program calls ptsname.
    unsafe { nix::pty::ptsname(master) }
}

fn source(stream: Stream, fd: OwnedFd) -> Result<Source, StreamsError> {
    let flags = fcntl(&fd, FcntlArg::F_GETFL).map_err(errno_at("fcntl F_GETFL"))?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(&fd, FcntlArg::F_SETFL(flags)).map_err(errno_at("fcntl F_SETFL"))?;
    Ok(Source { stream, file: fd.into() })
}

fn at(step: &'static str) -> impl Fn(io::Error) -> StreamsError {
    move |error| StreamsError { step, errno: error.raw_os_error().unwrap_or(libc::EIO) }
}

fn errno_at(step: &'static str) -> impl Fn(Errno) -> StreamsError {
    move |errno| StreamsError { step, errno: errno as i32 }
}
