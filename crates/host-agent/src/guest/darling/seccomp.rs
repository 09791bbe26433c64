//! A seccomp filter that lets everything through and asks a supervisor about `kill(0, …)`, and where one can log in about
//! `write(1, …)` of one length, alone (seccomp_unotify(2)).
//!
//! The filter is inherited by all that the process starts, for good. Its supervisor is whoever reads the listener; when
//! nobody holds it any more, such a call fails with ENOSYS and no process waits for an answer for ever.

#![expect(unsafe_code, reason = "seccomp has no safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `AUDIT_ARCH_X86_64` of linux/audit.h: the only architecture that Darling has.
const X86_64: u32 = 0xc000_003e;

/// Which calls are asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Questions {
    /// `kill(0, …)`.
    pub(super) kills: bool,
    /// `write(1, …)` of so many bytes.
    pub(super) writes: Option<u32>,
}

/// A call that waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// Names this call; stale once its thread is gone or was interrupted.
    pub(super) id: u64,
    /// The thread that calls, as this process's pid namespace numbers it.
    pub(super) thread: i32,
    /// What was called.
    pub(super) call: Call,
}

/// One of the calls that are asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// `kill(0, …)` with Linux's number of the signal.
    Kill(i32),
    /// `write(1, …)` of what is at this address of the caller's.
    Write(u64),
}

/// Where calls are asked about.
#[derive(Debug)]
pub(super) struct Listener(OwnedFd);

/// Installs the filter in this process. Makes plain system calls on its stack only, so it may run between fork and
/// exec. Needs CAP_SYS_ADMIN.
pub(super) fn install(questions: Questions) -> io::Result<OwnedFd> {
    const fn statement(code: u32, k: u32) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
    }
    const fn jump_unless_equal(k: u32, jf: u8) -> libc::sock_filter {
        libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt: 0, jf, k }
    }
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    // Offsets into seccomp_data; of arguments the lower half, which is all that the kernel takes of a pid or a descriptor.
    const ARCH: u32 = core::mem::offset_of!(libc::seccomp_data, arch) as u32;
    const NUMBER: u32 = core::mem::offset_of!(libc::seccomp_data, nr) as u32;
    const FIRST: u32 = core::mem::offset_of!(libc::seccomp_data, args) as u32;
    const THIRD: u32 = FIRST + 16;
    // A call that is not asked about is looked for under a number that no call has.
    const NONE: u32 = u32::MAX;
    let kill = if questions.kills { libc::SYS_kill as u32 } else { NONE };
    let (write, length) = questions.writes.map_or((NONE, 0), |length| (libc::SYS_write as u32, length));
    let mut program = [
        statement(LOAD, ARCH),
        jump_unless_equal(X86_64, 11),
        statement(LOAD, NUMBER),
        jump_unless_equal(kill, 3),
        statement(LOAD, FIRST),
        jump_unless_equal(0, 7),
        statement(RETURN, libc::SECCOMP_RET_USER_NOTIF),
        jump_unless_equal(write, 5),
        statement(LOAD, FIRST),
        jump_unless_equal(1, 3),
        statement(LOAD, THIRD),
        jump_unless_equal(length, 1),
        statement(RETURN, libc::SECCOMP_RET_USER_NOTIF),
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // Without SPEC_ALLOW older kernels slow the whole process down for a threat that does not concern a build.
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: `program` and what it points to outlive the call, which only reads them.
    let fd =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Listener {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl Listener {
    /// The next call; to be used when the listener is readable. `None` when the caller is gone already.
    pub(super) fn receive(&self) -> io::Result<Option<Asked>> {
        // SAFETY: all-zero is a valid seccomp_notif, and what the kernel demands.
        let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes one seccomp_notif, which `asked` is.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) } {
            0 => {
                let call = match i64::from(asked.data.nr) {
                    libc::SYS_write => Call::Write(asked.data.args[1]),
                    _ => Call::Kill(asked.data.args[1] as i32),
                };
                Ok(Some(Asked { id: asked.id, thread: asked.pid as i32, call }))
            }
            _ => match io::Error::last_os_error() {
                error if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Whether the caller still waits: what was read about its thread until now was about it.
    pub(super) fn still_waits(&self, asked: Asked) -> bool {
        // SAFETY: the kernel reads one u64, which `id` is.
        unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const asked.id) == 0
        }
    }

    /// Lets the call happen as it was made.
    pub(super) fn let_happen(&self, asked: Asked) {
        self.answer(asked, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32);
    }

    /// The call returns this and does nothing.
    pub(super) fn done(&self, asked: Asked, value: i64) {
        self.answer(asked, value, 0);
    }

    /// A caller that is gone needs no answer, so failures don't matter.
    fn answer(&self, asked: Asked, value: i64, flags: u32) {
        let response = libc::seccomp_notif_resp { id: asked.id, val: value, error: 0, flags };
        // SAFETY: the kernel reads one seccomp_notif_resp, which `response` is.
        unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const response);
        }
    }
}
