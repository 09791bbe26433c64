//! Under what a guest is started: everything in the slot inherits it, and nothing in there can take it off.
//!
//! Rights of root given up, a number of processes, no way to new rights, no abstract sockets and signals beyond the slot, and
//! the calls that are refused or asked about. What a daemon started by hand gives is the same as under systemd.

#![expect(unsafe_code, reason = "what is done between fork and exec")]

use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use caps::Capability;
use landlock::{Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::SigSet;
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};

use super::questions::{self, Listener, Questions};
use super::supervisor::Supervisor;
use super::{capabilities, refused_calls, rights};

/// What of it is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Most processes and threads of the slot's uid.
    pub processes: Option<u64>,
    /// Whether user namespaces can be made.
    pub user_namespaces: bool,
}

/// As whom something is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The slot's uid alone, with no way to any other: no rights, and no_new_privs.
    Slot(u32),
    /// The slot's uid as the real one, root's as the effective one, with these rights.
    ///
    /// Without no_new_privs: Linux before 6.16 takes an effective uid that is not the real one away at the next exec of such a process
    /// (`cap_bprm_creds_from_file` in security/commoncap.c; tried with 6.1 and 6.18). Set-uid files have no effect all the same:
    /// every mount in a slot says so.
    RootFor(u32, &'static [Capability]),
}

impl Confinement {
    /// Starts a program so. What it and all that it starts is asked about is answered through the supervisor.
    pub fn start(
        self,
        mut command: Command,
        identity: Identity,
        questions: Questions,
    ) -> io::Result<(Pid, Supervisor)> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut refused: Vec<Vec<libc::sock_filter>> = refused_calls::programs(self.user_namespaces)
            .map_err(io::Error::other)?
            .into_iter()
            .map(|program| program.into_iter().map(to_libc).collect())
            .collect();
        let mut asking = questions.program();
        let mut scope = Some(scope().map_err(io::Error::other)?);
        // SAFETY: this process has one thread, so its copy may do what the process may.
        unsafe {
            command.pre_exec(move || {
                self.limit_processes()?;
                identity.take_on()?;
                let listener = questions::install_with_listener(&mut asking)?;
                rights::pass(&theirs, &listener)?;
                drop(listener);
                if let Some(scope) = scope.take() {
                    scope.restrict_self().map_err(io::Error::other)?;
                }
                // Last: whatever was needed until here may be among them.
                refused.iter_mut().try_for_each(|program| questions::install(program))?;
                SigSet::empty().thread_set_mask()?;
                Ok(())
            });
        }
        let child = command.spawn()?;
        let listener = Listener::from(rights::take(&ours)?);
        Ok((Pid::from_raw(child.id() as i32), Supervisor::new(listener)))
    }

    fn limit_processes(self) -> io::Result<()> {
        if let Some(most) = self.processes {
            setrlimit(Resource::RLIMIT_NPROC, most, most)?;
        }
        Ok(())
    }
}

impl Identity {
    /// Takes it on, in a process of root's.
    fn take_on(self) -> io::Result<()> {
        setgroups(&[])?;
        match self {
            Identity::Slot(id) => {
                // The uids take away what is left.
                capabilities::pass_on(&[]).map_err(io::Error::other)?;
                setresgid(Gid::from_raw(id), Gid::from_raw(id), Gid::from_raw(id))?;
                setresuid(Uid::from_raw(id), Uid::from_raw(id), Uid::from_raw(id))?;
                // As Nix does for its own builders (`allow-new-privileges = false`).
                nix::sys::prctl::set_no_new_privs()?;
            }
            Identity::RootFor(id, rights) => {
                capabilities::keep(rights).map_err(io::Error::other)?;
                setresgid(Gid::from_raw(id), Gid::from_raw(0), Gid::from_raw(0))?;
                setresuid(Uid::from_raw(id), Uid::from_raw(0), Uid::from_raw(0))?;
            }
        }
        Ok(())
    }
}

/// Abstract sockets and signals stay within what is started so (landlock(7), Linux 6.12; before, as far as namespaces keep them in).
fn scope() -> Result<RulesetCreated, RulesetError> {
    let scope = Ruleset::default().scope(Scope::AbstractUnixSocket | Scope::Signal)?.create()?;
    Ok(scope.no_new_privs(false))
}

fn to_libc(step: seccompiler::sock_filter) -> libc::sock_filter {
    libc::sock_filter { code: step.code, jt: step.jt, jf: step.jf, k: step.k }
}
