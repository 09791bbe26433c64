//! Linux's own system calls, by number: the kernel below is Linux, also inside Darling, whose programs reach it by the same
//! instruction as Linux's do. There is none elsewhere, so whoever calls asks [`is_below`] first.

#![expect(unsafe_code, reason = "system calls by number")]

use crate::process_table;

/// x86_64's numbers (asm/unistd_64.h) of the calls that are used here.
pub mod number {
    pub const OPEN: i64 = 2;
    pub const CLONE: i64 = 56;
    pub const EXIT: i64 = 60;
    pub const WAIT4: i64 = 61;
    pub const KILL: i64 = 62;
    pub const CREAT: i64 = 85;
    pub const CHMOD: i64 = 90;
    pub const FCHMOD: i64 = 91;
    pub const GETRLIMIT: i64 = 97;
    pub const PTRACE: i64 = 101;
    pub const GETPPID: i64 = 110;
    pub const GETSID: i64 = 124;
    pub const MKNOD: i64 = 133;
    pub const STATFS: i64 = 137;
    pub const PRCTL: i64 = 157;
    pub const SOCKET: i64 = 41;
    pub const SOCKETPAIR: i64 = 53;
    pub const ADD_KEY: i64 = 248;
    pub const REQUEST_KEY: i64 = 249;
    pub const KEYCTL: i64 = 250;
    pub const OPENAT: i64 = 257;
    pub const MKNODAT: i64 = 259;
    pub const FCHMODAT: i64 = 268;
    pub const UNSHARE: i64 = 272;
    pub const PERF_EVENT_OPEN: i64 = 298;
    pub const BPF: i64 = 321;
    pub const USERFAULTFD: i64 = 323;
    pub const PRLIMIT64: i64 = 302;
    pub const IO_URING_SETUP: i64 = 425;
    pub const IO_URING_ENTER: i64 = 426;
    pub const IO_URING_REGISTER: i64 = 427;
    pub const CLONE3: i64 = 435;
    pub const OPENAT2: i64 = 437;
    pub const PIDFD_GETFD: i64 = 438;
    pub const LANDLOCK_CREATE_RULESET: i64 = 444;
    pub const LANDLOCK_RESTRICT_SELF: i64 = 446;
    pub const FCHMODAT2: i64 = 452;
}

/// Whether there is such a kernel.
pub fn is_below() -> bool {
    process_table::kernel_is_linux()
}

/// One call; missing arguments are 0. An error is an errno, with Linux's numbers.
///
/// # Safety
/// What the call does to this process's memory and descriptors must be sound. Fit for a forked child: nothing else is called.
pub unsafe fn call(number: i64, arguments: &[u64]) -> Result<u64, i32> {
    let argument = |index: usize| arguments.get(index).copied().unwrap_or(0);
    let result: i64;
    // SAFETY: the calling convention of x86_64 Linux; the rest is the caller's promise.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") argument(0),
            in("rsi") argument(1),
            in("rdx") argument(2),
            in("r10") argument(3),
            in("r8") argument(4),
            in("r9") argument(5),
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    match result {
        -4095..0 => Err(-result as i32),
        result => Ok(result as u64),
    }
}
