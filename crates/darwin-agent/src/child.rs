//! Fork and exec of the build's process.
//!
//! `std::process` is not used: the environment must be exactly the bytes that were given, the step that failed must be
//! known, and file mode mask, limits, signals and session must be set in one defined order.
//!
//! Everything that allocates happens before the fork. Between fork and exec only async-signal-safe calls are made,
//! because other threads of this program may hold any lock at that moment.
#![expect(unsafe_code, reason = "fork and exec have no safe wrappers")]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{c_char, c_int, pid_t};
use protocol::message::ResourceLimits;

use crate::reaper::{self, Wait};
use crate::shield::Shield;

/// A process to start; all strings are ready for the kernel.
#[derive(Debug)]
pub struct Command {
    /// Path of the executable, used as it is.
    pub program: CString,
    /// Arguments, `argv[0]` first.
    pub argv: Vec<CString>,
    /// `NAME=value` strings.
    pub env: Vec<CString>,
    /// Working directory.
    pub directory: CString,
    /// File mode creation mask.
    pub umask: u32,
    /// Limits to set.
    pub limits: ResourceLimits,
    /// Whether its stdin becomes its controlling terminal.
    pub controls_terminal: bool,
}

/// The process's standard streams.
#[derive(Debug)]
pub struct StandardStreams {
    /// Becomes descriptor 0.
    pub stdin: OwnedFd,
    /// Becomes descriptor 1.
    pub stdout: OwnedFd,
    /// Becomes descriptor 2.
    pub stderr: OwnedFd,
}

/// What was being done when a start failed. The numbers travel from the child through a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Pipe or descriptors in the parent.
    Prepare = 1,
    /// `fork(2)`.
    Fork = 2,
    /// `setsid(2)`.
    Session = 3,
    /// `dup2(2)` of a standard stream.
    Streams = 4,
    /// `setrlimit(2)`, `RLIMIT_CORE`.
    CoreLimit = 5,
    /// `setrlimit(2)`, `RLIMIT_FSIZE`.
    FileSizeLimit = 6,
    /// `chdir(2)`.
    Directory = 7,
    /// `execve(2)`.
    Exec = 8,
    /// `ioctl(2)`, `TIOCSCTTY`.
    Terminal = 9,
}

impl Step {
    fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Prepare,
            Self::Fork,
            Self::Session,
            Self::Streams,
            Self::CoreLimit,
            Self::FileSizeLimit,
            Self::Directory,
            Self::Exec,
            Self::Terminal,
        ]
        .into_iter()
        .find(|step| *step as u8 == byte)
    }
}

/// A start that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartError {
    /// Where.
    pub step: Step,
    /// errno.
    pub errno: i32,
}

impl StartError {
    fn last(step: Step) -> Self {
        Self { step, errno: errno() }
    }
}

/// Starts `command` as leader of a new session, without a controlling terminal unless it asks for one, with descriptors 0 to 2 only, all
/// signals at their defaults and none blocked. Returns once it has been executed; a failure before that is reported
/// and its process reaped.
pub fn start(command: &Command, streams: StandardStreams) -> Result<pid_t, StartError> {
    let (report_read, report_write) = io::pipe().map_err(|error| prepare_error(&error))?;
    let report_write = above_standard(report_write.into())?;
    let streams = StandardStreams {
        stdin: above_standard(streams.stdin)?,
        stdout: above_standard(streams.stdout)?,
        stderr: above_standard(streams.stderr)?,
    };
    let argv = pointers(&command.argv);
    let env = pointers(&command.env);
    let core = core_limit(command.limits.core);
    let file_size = command.limits.file_size.map(file_size_limit);
    let shield = Shield::new();

    let old_mask = block_signals();
    // SAFETY: the child only makes async-signal-safe calls (see `exec_child`) and never returns from here.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: this is the child of the fork; all pointers were made above and live until exec.
        unsafe {
            exec_child(&Prepared {
                program: &command.program,
                directory: &command.directory,
                argv: argv.as_ptr(),
                env: env.as_ptr(),
                streams: [streams.stdin.as_raw_fd(), streams.stdout.as_raw_fd(), streams.stderr.as_raw_fd()],
                umask: command.umask as libc::mode_t,
                core,
                file_size,
                controls_terminal: command.controls_terminal,
                shield: &shield,
                report: report_write.as_raw_fd(),
            })
        }
    }
    let forked = if pid < 0 { Err(StartError::last(Step::Fork)) } else { Ok(pid) };
    restore_signals(&old_mask);
    drop(report_write);
    drop(streams);
    let pid = forked?;

    match read_report(report_read.into()) {
        None => Ok(pid),
        Some(error) => {
            let _ = reaper::wait(Wait::For(pid));
            Err(error)
        }
    }
}

/// What the child needs, by reference only.
struct Prepared<'a> {
    program: &'a CStr,
    directory: &'a CStr,
    argv: *const *const c_char,
    env: *const *const c_char,
    streams: [RawFd; 3],
    umask: libc::mode_t,
    core: Option<libc::rlimit>,
    file_size: Option<libc::rlimit>,
    controls_terminal: bool,
    shield: &'a Shield,
    report: RawFd,
}

/// The child between fork and exec.
///
/// SAFETY: to be called in a forked child only. Calls nothing but system calls and `sigaction`, `sigprocmask` and
/// `sigemptyset`, which POSIX lists as async-signal-safe; allocates nothing, takes no lock, does not unwind.
unsafe fn exec_child(prepared: &Prepared<'_>) -> ! {
    // SAFETY: plain calls on descriptors and pointers that `start` made and that live as long as this process.
    unsafe {
        if libc::setsid() < 0 {
            fail(prepared.report, Step::Session);
        }
        for (target, source) in prepared.streams.iter().enumerate() {
            if libc::dup2(*source, target as c_int) < 0 {
                fail(prepared.report, Step::Streams);
            }
        }
        if prepared.controls_terminal && libc::ioctl(0, libc::TIOCSCTTY as libc::c_ulong, 0) < 0 {
            fail(prepared.report, Step::Terminal);
        }
        close_rest_on_exec();
        libc::umask(prepared.umask);
        if let Some(limit) = &prepared.core
            && libc::setrlimit(libc::RLIMIT_CORE, limit) < 0
        {
            fail(prepared.report, Step::CoreLimit);
        }
        if let Some(limit) = &prepared.file_size
            && libc::setrlimit(libc::RLIMIT_FSIZE, limit) < 0
        {
            fail(prepared.report, Step::FileSizeLimit);
        }
        if libc::chdir(prepared.directory.as_ptr()) < 0 {
            fail(prepared.report, Step::Directory);
        }
        prepared.shield.put_up();
        // Last, so that no handler or pending signal of the parent can act in between.
        reset_signals();
        libc::execve(prepared.program.as_ptr(), prepared.argv, prepared.env);
        fail(prepared.report, Step::Exec)
    }
}

/// Reports a failed step to the parent and ends the child.
///
/// SAFETY: as for [`exec_child`].
unsafe fn fail(report: RawFd, step: Step) -> ! {
    let errno = errno().to_ne_bytes();
    let message = [step as u8, errno[0], errno[1], errno[2], errno[3]];
    // SAFETY: a write of a local buffer to a descriptor that is open, and the end of the process.
    unsafe {
        libc::write(report, message.as_ptr().cast(), message.len());
        libc::_exit(127)
    }
}

/// Marks everything above the standard streams close-on-exec. Descriptors that this program opens are so already and
/// those it inherited were dealt with at its start; this is for what a library may have opened without asking.
///
/// SAFETY: as for [`exec_child`].
unsafe fn close_rest_on_exec() {
    #[cfg(target_os = "linux")]
    // SAFETY: changes flags of descriptors of this process only; an old kernel answers ENOSYS or EINVAL.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
}

/// Default action for every signal, none blocked.
///
/// SAFETY: as for [`exec_child`].
unsafe fn reset_signals() {
    #[cfg(target_os = "linux")]
    // SAFETY: the kernel's own structure, zeroed: SIG_DFL, no flags, empty mask. Directly, because the C library
    // refuses its reserved numbers (32 and 33), which may be ignored like others. SIGKILL and SIGSTOP are refused
    // harmlessly.
    unsafe {
        let action = [0u64; 4];
        for signal in 1..=64 {
            libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), ptr::null::<u64>(), 8usize);
        }
    }
    #[cfg(not(target_os = "linux"))]
    // SAFETY: a zeroed sigaction is SIG_DFL with an empty mask.
    unsafe {
        let action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        for signal in 1..32 {
            libc::sigaction(signal, &action, ptr::null_mut());
        }
    }
    // SAFETY: the set is local and initialised before it is read.
    unsafe {
        let mut none: libc::sigset_t = MaybeUninit::zeroed().assume_init();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
    }
}

/// Blocks all signals in this thread, so that none is handled by the parent's handlers in the child.
fn block_signals() -> libc::sigset_t {
    // SAFETY: both sets are local and initialised before they are read.
    unsafe {
        let mut all: libc::sigset_t = MaybeUninit::zeroed().assume_init();
        let mut old: libc::sigset_t = MaybeUninit::zeroed().assume_init();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
        old
    }
}

fn restore_signals(old: &libc::sigset_t) {
    // SAFETY: `old` came from `block_signals`.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, old, ptr::null_mut());
    }
}

/// Soft core limit, never above the hard one, which stays as it is.
fn core_limit(soft: u64) -> Option<libc::rlimit> {
    // SAFETY: getrlimit fills the local structure.
    let mut limit = unsafe {
        let mut limit: libc::rlimit = MaybeUninit::zeroed().assume_init();
        if libc::getrlimit(libc::RLIMIT_CORE, &mut limit) < 0 {
            return None;
        }
        limit
    };
    limit.rlim_cur = (soft as libc::rlim_t).min(limit.rlim_max);
    Some(limit)
}

/// Soft and hard, so that the build can't lift it again.
fn file_size_limit(bytes: u64) -> libc::rlimit {
    // SAFETY: getrlimit fills the local structure; if it fails, the zeroed one is overwritten below.
    let inherited = unsafe {
        let mut limit: libc::rlimit = MaybeUninit::zeroed().assume_init();
        if libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) < 0 { libc::RLIM_INFINITY } else { limit.rlim_max }
    };
    let bytes = (bytes as libc::rlim_t).min(inherited);
    libc::rlimit { rlim_cur: bytes, rlim_max: bytes }
}

/// The same file at a descriptor above the standard ones, closed on exec: `dup2` onto itself would keep that flag.
fn above_standard(fd: OwnedFd) -> Result<OwnedFd, StartError> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    // SAFETY: `fd` is open; the result is a new descriptor that nobody else owns.
    unsafe {
        let copy = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3);
        if copy < 0 { Err(StartError::last(Step::Prepare)) } else { Ok(OwnedFd::from_raw_fd(copy)) }
    }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

fn prepare_error(error: &io::Error) -> StartError {
    StartError { step: Step::Prepare, errno: error.raw_os_error().unwrap_or(libc::EIO) }
}

/// What the child reported; `None` when exec closed the pipe.
fn read_report(read: OwnedFd) -> Option<StartError> {
    let mut message = Vec::with_capacity(5);
    // A read error can't say that the program did not start, and `wait` will tell what became of it.
    let _ = File::from(read).take(5).read_to_end(&mut message);
    let [step, errno @ ..] = <[u8; 5]>::try_from(message).ok()?;
    Some(StartError { step: Step::from_byte(step)?, errno: i32::from_ne_bytes(errno) })
}

fn errno() -> i32 {
    // Reads the thread's errno and nothing else: fit for a forked child as well.
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
