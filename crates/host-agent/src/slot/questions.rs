//! System calls about which a slot's processes are asked before they happen (seccomp_unotify(2)).
//!
//! The filter lets everything through but these few, alone; it is inherited by all that the process starts, for good. Whoever
//! reads the [`Listener`] answers; when nobody holds it any more, such a call fails with ENOSYS and no process waits for an
//! answer for ever.

#![expect(unsafe_code, reason = "seccomp has no safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// `AUDIT_ARCH_X86_64` of linux/audit.h: the only architecture that Darling has.
const X86_64: u32 = 0xc000_003e;

/// `__X32_SYSCALL_BIT` of asm/unistd.h: calls of the x32 ABI are x86_64's with this bit, and no other filter knows these numbers.
const X32: u32 = 0x4000_0000;

/// Which calls are asked about besides `kill(-1, …)`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Questions {
    /// `kill(0, …)`.
    pub group_kills: bool,
    /// `write(1, …)` of so many bytes.
    pub writes: Option<u32>,
}

/// A call that waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Names this call; stale once its thread is gone or was interrupted.
    id: u64,
    /// The thread that calls, as this process's pid namespace numbers it.
    pub thread: i32,
    /// What was called.
    pub call: Call,
}

/// One of the calls that are asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `kill(-1, …)` with Linux's number of the signal.
    KillEveryone(i32),
    /// `kill(0, …)` with Linux's number of the signal.
    KillGroup(i32),
    /// `write(1, …)` of what is at this address of the caller's.
    Write(u64),
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It happens as it was made.
    LetHappen,
    /// It returns this and does nothing.
    Done(i64),
    /// It fails with this.
    Fail(Errno),
}

/// Where calls are asked about.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Questions {
    /// As a program for the kernel.
    pub(super) fn program(self) -> Vec<libc::sock_filter> {
        // Of arguments the lower half, which is all that the kernel takes of a pid or a descriptor.
        const ARGUMENTS: u32 = core::mem::offset_of!(libc::seccomp_data, args) as u32;
        const FIRST: u32 = ARGUMENTS;
        const THIRD: u32 = ARGUMENTS + 16;
        const EVERYONE: u32 = -1_i32 as u32;
        let mut program = Program::for_x86_64();
        program.ask(libc::SYS_kill, &[(FIRST, EVERYONE)]);
        if self.group_kills {
            program.ask(libc::SYS_kill, &[(FIRST, 0)]);
        }
        if let Some(length) = self.writes {
            program.ask(libc::SYS_write, &[(FIRST, 1), (THIRD, length)]);
        }
        program.end()
    }
}

/// A program that is being written.
struct Program(Vec<libc::sock_filter>);

impl Program {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    const NUMBER: u32 = core::mem::offset_of!(libc::seccomp_data, nr) as u32;

    /// Calls of other architectures are another filter's matter ([`super::refused_calls`]); those of x32 do not exist.
    fn for_x86_64() -> Self {
        const ARCH: u32 = core::mem::offset_of!(libc::seccomp_data, arch) as u32;
        let mut program = Self(Vec::new());
        program.statement(Self::LOAD, ARCH);
        program.jump(libc::BPF_JEQ, X86_64, 1, 0);
        program.statement(Self::RETURN, libc::SECCOMP_RET_ALLOW);
        program.statement(Self::LOAD, Self::NUMBER);
        program.jump(libc::BPF_JGE, X32, 0, 1);
        program.statement(Self::RETURN, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
        program
    }

    /// Asks about a call if each of these arguments (offset, value) is as said.
    fn ask(&mut self, number: libc::c_long, arguments: &[(u32, u32)]) {
        let rest = |tests: usize| u8::try_from(2 * tests + 1).unwrap_or(u8::MAX);
        self.statement(Self::LOAD, Self::NUMBER);
        self.jump(libc::BPF_JEQ, number as u32, 0, rest(arguments.len()));
        for (tests_before, (offset, value)) in arguments.iter().enumerate() {
            self.statement(Self::LOAD, *offset);
            self.jump(libc::BPF_JEQ, *value, 0, rest(arguments.len() - tests_before - 1));
        }
        self.statement(Self::RETURN, libc::SECCOMP_RET_USER_NOTIF);
    }

    fn end(mut self) -> Vec<libc::sock_filter> {
        self.statement(Self::RETURN, libc::SECCOMP_RET_ALLOW);
        self.0
    }

    fn statement(&mut self, code: u32, k: u32) {
        self.0.push(libc::sock_filter { code: code as u16, jt: 0, jf: 0, k });
    }

    fn jump(&mut self, test: u32, k: u32, jt: u8, jf: u8) {
        self.0.push(libc::sock_filter { code: (libc::BPF_JMP | test | libc::BPF_K) as u16, jt, jf, k });
    }
}

/// Installs a filter in this process. Makes one system call, so it may run between fork and exec. Needs CAP_SYS_ADMIN or no_new_privs.
pub(super) fn install(program: &mut [libc::sock_filter]) -> io::Result<()> {
    seccomp(program, 0).map(drop)
}

/// As [`install`], of a program that asks.
pub(super) fn install_with_listener(program: &mut [libc::sock_filter]) -> io::Result<OwnedFd> {
    let fd = seccomp(program, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn seccomp(program: &mut [libc::sock_filter], flags: libc::c_ulong) -> io::Result<i32> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // Without SPEC_ALLOW older kernels slow the whole process down for a threat that does not concern a build.
    let flags = flags | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: `program` and what it points to outlive the call, which only reads them.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
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
    pub fn receive(&self) -> io::Result<Option<Asked>> {
        // SAFETY: all-zero is a valid seccomp_notif, and what the kernel demands.
        let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes one seccomp_notif, which `asked` is.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) } {
            0 => {
                let [first, second, ..] = asked.data.args;
                let call = match (i64::from(asked.data.nr), first as i32) {
                    (libc::SYS_write, _) => Call::Write(second),
                    (_, 0) => Call::KillGroup(second as i32),
                    _ => Call::KillEveryone(second as i32),
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
    pub fn still_waits(&self, asked: Asked) -> bool {
        // SAFETY: the kernel reads one u64, which `id` is.
        unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const asked.id) == 0
        }
    }

    /// Answers. A caller that is gone needs no answer, so failures don't matter.
    pub fn answer(&self, asked: Asked, answer: Answer) {
        let (val, error, flags) = match answer {
            Answer::LetHappen => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
            Answer::Done(value) => (value, 0, 0),
            Answer::Fail(errno) => (0, -(errno as i32), 0),
        };
        let response = libc::seccomp_notif_resp { id: asked.id, val, error, flags };
        // SAFETY: the kernel reads one seccomp_notif_resp, which `response` is.
        unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const response);
        }
    }
}
