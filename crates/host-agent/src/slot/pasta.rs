//! The way out for fixed-output builds: a network namespace of their own, joined to the host's network by pasta(1).
//!
//! What they are kept from is the machine itself: its abstract sockets, its loopback, and its own addresses, which the namespace has too
//! ([`super::host_addresses`]): those that the machine has when the slot boots. What
//! they send beyond it, pasta sends as a program of a uid that nothing else has, shut in by itself. It is a child of the slot's first process,
//! so it ends with the slot; it is not in the builder's reach, for it has another uid and the builder no rights.
//!
//! pasta wants to own the namespace that it serves. So that belongs to a user namespace which the same uid owns, made by a child that
//! is gone before pasta starts.

#![expect(unsafe_code, reason = "fork, to make namespaces as another uid")]

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use caps::{CapSet, Capability};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::SigSet;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Uid, fork, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{host_addresses, loopback, rights};

/// How long pasta may take until packets have a way out; 20 ms is usual.
const LIMIT: Duration = Duration::from_secs(10);

/// How long, after the one version of the protocol has a way out, the other may take, if the host has one for both. It may never come: pasta
/// leaves out one in which the host has no address.
const SECOND_LIMIT: Duration = Duration::from_millis(500);

/// Between two looks whether they have.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// The interface of the namespace that leads out.
pub(super) const INTERFACE: &str = "eth0";

/// Where a resolver answers in the namespace, whichever the host's are: pasta sends on what is asked there.
pub(super) const RESOLVER: &str = "169.254.1.1";

/// What is to be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastaPlan {
    /// The program, on the host.
    pub program: PathBuf,
    /// Uid and gid that it runs as.
    pub uid: u32,
}

/// Why there is no way out.
#[derive(Debug, Error)]
pub enum PastaError {
    /// No namespace for it.
    #[error(
        "failed to make a network for pasta to serve: {0}; user namespaces must be possible for root (user.max_user_namespaces)"
    )]
    Namespaces(io::Error),
    /// The program can't be executed.
    #[error("failed to start {}: {error}", program.display())]
    Start {
        /// Which.
        program: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It ended.
    #[error(
        "pasta ended ({0}) before the slot had a network: see that /dev/net/tun exists and everybody may write to it, as udev \
         has it, and that the machine has a default route"
    )]
    Ended(String),
    /// The namespace can't be given the machine's addresses.
    #[error("failed to keep the machine's own addresses out of the slot's reach: {0}")]
    Addresses(io::Error),
    /// It did nothing.
    #[error("pasta gave the slot no network within {} s", LIMIT.as_secs())]
    Late,
}

/// Takes this process, which must have one thread and the host's network, into a network of its own that pasta serves. What pasta
/// says goes to `log`.
pub(super) fn enter(plan: &PastaPlan, log: &File) -> Result<Child, PastaError> {
    let addresses = host_addresses::of_this_network().map_err(PastaError::Addresses)?;
    let wanted = default_routes();
    let (user, network) = namespaces(plan.uid).map_err(PastaError::Namespaces)?;
    let mut pasta = start(plan, user, network.try_clone().map_err(PastaError::Namespaces)?, log)?;
    let joined =
        setns(network, CloneFlags::CLONE_NEWNET).map_err(io::Error::from).and_then(|()| loopback::up());
    if let Err(error) = joined {
        let _ = pasta.kill();
        return Err(PastaError::Namespaces(error));
    }
    if let Err(error) = wait_for(&mut pasta, wanted) {
        let _ = pasta.kill();
        return Err(error);
    }
    if let Err(error) = host_addresses::give(&addresses, INTERFACE) {
        let _ = pasta.kill();
        return Err(PastaError::Addresses(error));
    }
    Ok(pasta)
}

/// Waits until this process's network has these default routes.
fn wait_for(pasta: &mut Child, wanted: [bool; 2]) -> Result<(), PastaError> {
    let mut deadline = Instant::now() + LIMIT;
    let mut has_one = false;
    loop {
        let found = default_routes();
        if found == wanted && found != [false; 2] {
            return Ok(());
        }
        if let Ok(Some(status)) = pasta.try_wait() {
            return Err(PastaError::Ended(status.to_string()));
        }
        if found != [false; 2] && !has_one {
            has_one = true;
            deadline = Instant::now() + SECOND_LIMIT;
        }
        if Instant::now() >= deadline {
            return if has_one { Ok(()) } else { Err(PastaError::Late) };
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn start(plan: &PastaPlan, user: OwnedFd, network: OwnedFd, log: &File) -> Result<Child, PastaError> {
    let failed = |error| PastaError::Start { program: plan.program.clone(), error };
    let id = plan.uid;
    let mut command = Command::new(&plan.program);
    command
        // Newer ones close all descriptors but the standard ones.
        .args(["--userns", "/proc/self/fd/0", "--netns", "/proc/self/fd/1", "--no-netns-quit"])
        .args(["--quiet", "--foreground", "--config-net", "--ns-ifname", INTERFACE])
        // Nothing of the host's loopback, in neither direction.
        .args(["--no-map-gw", "-t", "none", "-u", "none", "-T", "none", "-U", "none"])
        .args(["--dns-forward", RESOLVER])
        .env_clear()
        .current_dir("/")
        .stdin(user)
        .stdout(network)
        .stderr(log.try_clone().map_err(failed)?);
    // SAFETY: this process has one thread, so its copy may do what the process may.
    unsafe {
        command.pre_exec(move || {
            become_uid(id)?;
            nix::sys::prctl::set_no_new_privs()?;
            Ok(SigSet::empty().thread_set_mask()?)
        });
    }
    command.spawn().map_err(failed)
}

fn become_uid(id: u32) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

/// A user namespace that this uid owns and is root in, and a network namespace that belongs to it.
fn namespaces(id: u32) -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair()?;
    // SAFETY: this process has one thread, so its copy may do what the process may; it never returns from here.
    match unsafe { fork()? } {
        ForkResult::Child => {
            let passed = make_namespaces(id).and_then(|(user, network)| {
                rights::pass(&theirs, &user)?;
                rights::pass(&theirs, &network)
            });
            // SAFETY: ends the copy without running destructors.
            unsafe { libc::_exit(passed.err().and_then(|error| error.raw_os_error()).unwrap_or(0)) }
        }
        ForkResult::Parent { child } => {
            drop(theirs);
            let taken = rights::take(&ours).and_then(|user| Ok((user, rights::take(&ours)?)));
            match waitpid(child, None)? {
                WaitStatus::Exited(_, errno) if errno > 0 => Err(io::Error::from_raw_os_error(errno)),
                _ => taken,
            }
        }
    }
}

/// What the child does, whose numbers in /proc are not those that it knows.
fn make_namespaces(id: u32) -> io::Result<(OwnedFd, OwnedFd)> {
    // Some systems let only those make them who have the right to more; it goes with the new namespace.
    nix::sys::prctl::set_keepcaps(true)?;
    become_uid(id)?;
    caps::raise(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).map_err(io::Error::other)?;
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
    // Else its files in /proc are root's.
    nix::sys::prctl::set_dumpable(true)?;
    fs::write("/proc/self/uid_map", format!("0 {id} 1"))?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", format!("0 {id} 1"))?;
    Ok((File::open("/proc/self/ns/user")?.into(), File::open("/proc/self/ns/net")?.into()))
}

/// Whether this process's network namespace has one, for each version of the protocol.
fn default_routes() -> [bool; 2] {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/net/{name}")).unwrap_or_default();
    [has_default_route_4(&read("route")), has_default_route_6(&read("ipv6_route"))]
}

/// proc_pid_net(5), `route`: interface, destination, …
fn has_default_route_4(table: &str) -> bool {
    table.lines().skip(1).any(|line| line.split_ascii_whitespace().nth(1) == Some("00000000"))
}

/// proc_pid_net(5), `ipv6_route`: destination, its length, …, interface. The kernel has a default route to nowhere, on `lo`.
fn has_default_route_6(table: &str) -> bool {
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        fields.get(1) == Some(&"00") && fields.last() != Some(&"lo")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_route_is_found_in_either_table() {
        let header = "Iface\tDestination\tGateway \tFlags\n";
        assert!(has_default_route_4(&format!("{header}eth0\t00000000\t0109090A\t0003\n")));
        assert!(!has_default_route_4(&format!("{header}eth0\t0009090A\t00000000\t0001\n")));
        assert!(!has_default_route_4(""));
        let zeros = "0".repeat(32);
        let route = |length: &str, interface: &str| {
            format!("{zeros} {length} {zeros} 00 {zeros} 00000400 00000001 00000000 00000003 {interface}\n")
        };
        assert!(has_default_route_6(&route("00", "eth0")));
        assert!(!has_default_route_6(&route("00", "lo")));
        assert!(!has_default_route_6(&route("40", "eth0")));
    }
}
