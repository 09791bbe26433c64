//! What no program in a slot may ask of the kernel: one table, for every guest.
//!
//! A slot lives by its namespaces and its uid. Refused is what would outlive it (set-uid files, keys), what would take from the
//! machine without anybody's limit (user namespaces), and parts of the kernel that builds have no use for and that have let
//! others through often. All else is as for a local build: this is a list of what is refused, not of what is allowed.
//!
//! Arguments are looked at where the kernel shows them to a filter. A call whose argument lies in memory (`clone3`, `openat2`) does not
//! exist in a slot, and C libraries then use the older one. Programs of 32 bits are killed: their calls have other numbers.

use std::collections::BTreeMap;

use nix::errno::Errno;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// What is refused, and what the caller is told.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// As `host-agent doctor` and `darwin-agent --try-confinement` call it.
    pub name: &'static str,
    /// The error that such a call ends with.
    pub answer: Errno,
    /// Each of these alone is refused.
    calls: &'static [(libc::c_long, Use)],
    /// Whether it is allowed where user namespaces are (`allow-user-namespaces`).
    by_user_namespaces: bool,
}

/// Which use of a call is refused. Numbers are those of arguments, from 0.
#[derive(Debug, Clone, Copy)]
enum Use {
    /// Every use.
    Any,
    /// With a set-uid or set-gid bit in this mode.
    SetIdMode(u8),
    /// Making a file, by these flags, with a set-uid or set-gid bit in this mode.
    SetIdFile { flags: u8, mode: u8 },
    /// With `CLONE_NEWUSER` among these flags.
    NewUser(u8),
    /// With a first argument that is none of these.
    NoneOf(&'static [libc::c_int]),
    /// With a first argument that is not 0, the caller, and a third that is not null, what to set.
    SetOfAnother,
}

use Use::{Any, NewUser, NoneOf, SetIdFile, SetIdMode, SetOfAnother};

/// Families of sockets that builds need: their own, the network's, and name lookups'.
const FAMILIES: &[libc::c_int] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// The table.
pub const RULES: &[Rule] = &[
    // As Nix does (src/libstore/unix/build/linux-derivation-builder.cc, `setupSeccomp`): whoever could execute such a file outside of
    // the slot would have the slot's uid there.
    Rule {
        name: "set-id-mode",
        answer: Errno::EPERM,
        calls: &[
            (libc::SYS_chmod, SetIdMode(1)),
            (libc::SYS_fchmod, SetIdMode(1)),
            (libc::SYS_fchmodat, SetIdMode(2)),
            (libc::SYS_fchmodat2, SetIdMode(2)),
            (libc::SYS_mknod, SetIdMode(1)),
            (libc::SYS_mknodat, SetIdMode(2)),
            (libc::SYS_creat, SetIdMode(1)),
            (libc::SYS_open, SetIdFile { flags: 1, mode: 2 }),
            (libc::SYS_openat, SetIdFile { flags: 2, mode: 3 }),
        ],
        by_user_namespaces: false,
    },
    // The mode is in memory.
    Rule {
        name: "openat2",
        answer: Errno::ENOSYS,
        calls: &[(libc::SYS_openat2, Any)],
        by_user_namespaces: false,
    },
    // Whoever makes one is root in it: mounts, tmpfs that no limit covers, and the larger half of the kernel's recent holes.
    Rule {
        name: "user-namespace",
        answer: Errno::EPERM,
        calls: &[(libc::SYS_unshare, NewUser(0)), (libc::SYS_clone, NewUser(0))],
        by_user_namespaces: true,
    },
    // The flags are in memory.
    Rule {
        name: "clone3",
        answer: Errno::ENOSYS,
        calls: &[(libc::SYS_clone3, Any)],
        by_user_namespaces: true,
    },
    // They belong to a uid or a session, not to a slot.
    Rule {
        name: "keys",
        answer: Errno::ENOSYS,
        calls: &[(libc::SYS_add_key, Any), (libc::SYS_request_key, Any), (libc::SYS_keyctl, Any)],
        by_user_namespaces: false,
    },
    // It makes calls that no filter sees.
    Rule {
        name: "io-uring",
        answer: Errno::ENOSYS,
        calls: &[
            (libc::SYS_io_uring_setup, Any),
            (libc::SYS_io_uring_enter, Any),
            (libc::SYS_io_uring_register, Any),
        ],
        by_user_namespaces: false,
    },
    Rule {
        name: "socket-family",
        answer: Errno::EAFNOSUPPORT,
        calls: &[(libc::SYS_socket, NoneOf(FAMILIES)), (libc::SYS_socketpair, NoneOf(FAMILIES))],
        by_user_namespaces: false,
    },
    Rule { name: "bpf", answer: Errno::EPERM, calls: &[(libc::SYS_bpf, Any)], by_user_namespaces: false },
    Rule {
        name: "perf",
        answer: Errno::EPERM,
        calls: &[(libc::SYS_perf_event_open, Any)],
        by_user_namespaces: false,
    },
    // A page fault that somebody else answers holds up whoever reads that memory, root too.
    Rule {
        name: "userfaultfd",
        answer: Errno::EPERM,
        calls: &[(libc::SYS_userfaultfd, Any)],
        by_user_namespaces: false,
    },
    // The agent has the builder's uid.
    Rule {
        name: "descriptors-of-others",
        answer: Errno::EPERM,
        calls: &[(libc::SYS_pidfd_getfd, Any)],
        by_user_namespaces: false,
    },
    // One of processor time ends it.
    Rule {
        name: "limits-of-others",
        answer: Errno::EPERM,
        calls: &[(libc::SYS_prlimit64, SetOfAnother)],
        by_user_namespaces: false,
    },
];

/// The rules that hold in a slot.
pub fn rules(user_namespaces: bool) -> impl Iterator<Item = &'static Rule> {
    RULES.iter().filter(move |rule| !(user_namespaces && rule.by_user_namespaces))
}

/// The table as programs for the kernel, one for each answer.
pub(super) fn programs(user_namespaces: bool) -> Result<Vec<BpfProgram>, BackendError> {
    let mut by_answer: BTreeMap<i32, BTreeMap<i64, Vec<SeccompRule>>> = BTreeMap::new();
    for rule in rules(user_namespaces) {
        let calls = by_answer.entry(rule.answer as i32).or_default();
        for (number, refused) in rule.calls {
            calls.insert(*number, refused.alternatives()?);
        }
    }
    let programs = by_answer.into_iter().map(|(answer, calls)| {
        let refuse = SeccompAction::Errno(answer.unsigned_abs());
        SeccompFilter::new(calls, SeccompAction::Allow, refuse, TargetArch::x86_64)?.try_into()
    });
    programs.collect()
}

impl Use {
    /// One of these must hold, and all conditions of it; none at all: always.
    fn alternatives(self) -> Result<Vec<SeccompRule>, BackendError> {
        const CREATING: [i32; 2] = [libc::O_CREAT, libc::O_TMPFILE & !libc::O_DIRECTORY];
        const SET_ID: [u32; 2] = [libc::S_ISUID, libc::S_ISGID];
        match self {
            Any => Ok(Vec::new()),
            SetIdMode(mode) => SET_ID.iter().map(|bit| SeccompRule::new(vec![has(mode, *bit)?])).collect(),
            SetIdFile { flags, mode } => CREATING
                .iter()
                .flat_map(|flag| SET_ID.iter().map(move |bit| (flag.cast_unsigned(), *bit)))
                .map(|(flag, bit)| SeccompRule::new(vec![has(flags, flag)?, has(mode, bit)?]))
                .collect(),
            NewUser(flags) => {
                Ok(vec![SeccompRule::new(vec![has(flags, libc::CLONE_NEWUSER.cast_unsigned())?])?])
            }
            NoneOf(allowed) => {
                let conditions: Result<Vec<_>, _> = allowed.iter().map(|value| is_not(0, *value)).collect();
                Ok(vec![SeccompRule::new(conditions?)?])
            }
            SetOfAnother => {
                let some = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?;
                Ok(vec![SeccompRule::new(vec![is_not(0, 0)?, some])?])
            }
        }
    }
}

/// The kernel takes the lower half of these arguments only.
fn has(argument: u8, bit: u32) -> Result<SeccompCondition, BackendError> {
    let bit = u64::from(bit);
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bit), bit)
}

fn is_not(argument: u8, value: libc::c_int) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value.unsigned_abs().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel's interpreter makes of a program (the instructions that are in ours).
    fn verdict(program: &BpfProgram, number: libc::c_long, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend_from_slice(&(number as u32).to_ne_bytes());
        data.extend_from_slice(&0xc000_003e_u32.to_ne_bytes());
        data.extend_from_slice(&0_u64.to_ne_bytes());
        arguments.iter().for_each(|argument| data.extend_from_slice(&argument.to_ne_bytes()));
        let (mut at, mut accumulator) = (0, 0_u32);
        loop {
            let step = &program[at];
            at += 1;
            match step.code {
                0x20 => {
                    let bytes = &data[step.k as usize..][..4];
                    accumulator = u32::from_ne_bytes(bytes.try_into().unwrap());
                }
                0x05 => at += step.k as usize,
                0x15 => at += usize::from(if accumulator == step.k { step.jt } else { step.jf }),
                0x54 => accumulator &= step.k,
                0x06 => return step.k,
                code => panic!("instruction {code:#x}"),
            }
        }
    }

    /// The error of a call, 0 if it is let through.
    fn answer(user_namespaces: bool, number: libc::c_long, arguments: &[i64]) -> i32 {
        let mut all = [0xdead_beef_0000_0000_u64; 6];
        for (place, argument) in all.iter_mut().zip(arguments) {
            *place |= u64::from(*argument as u32);
        }
        let verdicts: Vec<u32> = programs(user_namespaces)
            .unwrap()
            .iter()
            .map(|program| verdict(program, number, all))
            .filter(|verdict| *verdict != libc::SECCOMP_RET_ALLOW)
            .collect();
        match verdicts[..] {
            [] => 0,
            [verdict] => {
                assert_eq!(verdict & !libc::SECCOMP_RET_DATA, libc::SECCOMP_RET_ERRNO);
                (verdict & libc::SECCOMP_RET_DATA) as i32
            }
            _ => panic!("{verdicts:?}"),
        }
    }

    #[test]
    fn a_set_id_bit_is_refused_wherever_a_mode_can_be_given() {
        const EPERM: i32 = libc::EPERM;
        for bit in [0o4000, 0o2000, 0o6755] {
            for (number, arguments) in [
                (libc::SYS_chmod, vec![0, bit]),
                (libc::SYS_fchmod, vec![0, bit | 0o755]),
                (libc::SYS_fchmodat, vec![0, 0, bit]),
                (libc::SYS_fchmodat2, vec![0, 0, bit]),
                (libc::SYS_mknod, vec![0, i64::from(libc::S_IFREG) | bit]),
                (libc::SYS_mknodat, vec![0, 0, bit]),
                (libc::SYS_creat, vec![0, bit]),
                (libc::SYS_open, vec![0, i64::from(libc::O_CREAT | libc::O_WRONLY), bit]),
                (libc::SYS_openat, vec![0, 0, i64::from(libc::O_CREAT), bit]),
                (libc::SYS_openat, vec![0, 0, i64::from(libc::O_TMPFILE | libc::O_RDWR), bit]),
            ] {
                assert_eq!(answer(false, number, &arguments), EPERM, "{number} {arguments:?}");
                assert_eq!(answer(true, number, &arguments), EPERM, "{number} {arguments:?}");
            }
        }
    }

    #[test]
    fn other_modes_and_what_is_no_mode_are_let_through() {
        for (number, arguments) in [
            (libc::SYS_chmod, vec![0x6000, 0o1777]),
            (libc::SYS_fchmodat, vec![0o6755, 0o6755, 0o755]),
            // Whoever opens without making a file may leave anything where the mode would be.
            (libc::SYS_open, vec![0, i64::from(libc::O_RDWR), 0o6755]),
            (libc::SYS_openat, vec![0, 0, i64::from(libc::O_DIRECTORY), 0o6755]),
            (libc::SYS_openat, vec![0, 0, i64::from(libc::O_CREAT), 0o666]),
            (libc::SYS_clone, vec![i64::from(libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD)]),
            (libc::SYS_unshare, vec![i64::from(libc::CLONE_NEWNS | libc::CLONE_FILES)]),
            (libc::SYS_socket, vec![i64::from(libc::AF_INET6), 1, 0]),
            (libc::SYS_socketpair, vec![i64::from(libc::AF_UNIX), 1, 0]),
            (libc::SYS_ptrace, vec![0]),
            (libc::SYS_prlimit64, vec![0, 0, 1]),
            (libc::SYS_personality, vec![0x0004_0000]),
        ] {
            assert_eq!(answer(false, number, &arguments), 0, "{number} {arguments:?}");
        }
    }

    #[test]
    fn user_namespaces_are_refused_unless_they_are_allowed() {
        let new_user = [i64::from(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)];
        for number in [libc::SYS_unshare, libc::SYS_clone] {
            assert_eq!(answer(false, number, &new_user), libc::EPERM);
            assert_eq!(answer(true, number, &new_user), 0);
        }
        assert_eq!(answer(false, libc::SYS_clone3, &[]), libc::ENOSYS);
        assert_eq!(answer(true, libc::SYS_clone3, &[]), 0);
    }

    #[test]
    fn parts_of_the_kernel_that_builds_do_not_need_are_refused() {
        assert_eq!(answer(true, libc::SYS_socket, &[i64::from(libc::AF_VSOCK), 1]), libc::EAFNOSUPPORT);
        assert_eq!(answer(true, libc::SYS_socketpair, &[i64::from(libc::AF_ALG)]), libc::EAFNOSUPPORT);
        assert_eq!(answer(true, libc::SYS_keyctl, &[1]), libc::ENOSYS);
        assert_eq!(answer(true, libc::SYS_io_uring_setup, &[]), libc::ENOSYS);
        assert_eq!(answer(true, libc::SYS_prlimit64, &[7, 0, 1]), libc::EPERM);
        for number in [libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_userfaultfd, libc::SYS_pidfd_getfd]
        {
            assert_eq!(answer(false, number, &[]), libc::EPERM);
        }
    }
}
