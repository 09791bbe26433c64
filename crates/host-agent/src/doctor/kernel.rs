//! The kernel: its version, and each feature that slots need, by using it.

use std::fs;
use std::path::Path;

use nix::fcntl::AT_FDCWD;
use nix::sys::utsname::uname;

use super::{Finding, is_root};
use crate::config::{Config, GuestKind};
use crate::mount::{Attributes, Extent, clone_tree, set_attributes};
use crate::slot::spawn::{self, NetworkNamespace};

/// mount_setattr(2).
const OLDEST: (u32, u32) = (5, 12);

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let mut findings = vec![version(), namespaces(), namespace_limits(config), mount_calls(config)];
    if config.guest == GuestKind::Darling {
        findings.push(overlay());
        findings.push(seccomp());
    }
    findings
}

fn version() -> Finding {
    let release = uname().map(|names| names.release().to_string_lossy().into_owned()).unwrap_or_default();
    if parse(&release) >= OLDEST {
        Finding::fine("kernel", format!("Linux {release}"))
    } else {
        Finding::broken(
            "kernel",
            format!("Linux {release}"),
            "boot Linux 5.12 or later: slots need open_tree, move_mount and mount_setattr",
        )
    }
}

/// Major and minor number of a release such as `6.1.0-13-amd64`.
fn parse(release: &str) -> (u32, u32) {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn namespaces() -> Finding {
    const NAME: &str = "namespaces";
    if !is_root() {
        return Finding::untried(NAME);
    }
    // It ends by itself, as its socket closes at once.
    match spawn::slot_init(NetworkNamespace::Own) {
        Ok(_) => Finding::fine(NAME, "mount, pid, net, ipc and uts namespaces can be made"),
        Err(error) => Finding::broken(
            NAME,
            format!("can't be made: {error}"),
            "run outside of containers that forbid them, with CAP_SYS_ADMIN; see /proc/sys/user/max_*_namespaces",
        ),
    }
}

fn namespace_limits(config: &Config) -> Finding {
    const NAME: &str = "namespace-limits";
    // Each slot has one of each kind, Darling inside makes another.
    let needed = u64::from(config.jobs() + config.warm() + 1) * 2;
    let limits = ["mnt", "pid", "net", "ipc", "uts"].map(|kind| {
        let path = format!("/proc/sys/user/max_{kind}_namespaces");
        let limit = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u64>().ok());
        (path, limit)
    });
    let least = limits.iter().filter_map(|(_, limit)| *limit).min();
    match limits.iter().find(|(_, limit)| limit.is_some_and(|limit| limit < needed)) {
        Some((path, limit)) => Finding::broken(
            NAME,
            format!("{path} is {}, and {needed} are needed", limit.unwrap_or(0)),
            format!("sysctl -w user.{}=1024", path.rsplit('/').next().unwrap_or_default()),
        ),
        None => Finding::fine(
            NAME,
            match least {
                Some(least) => format!("at least {least} of each kind; {needed} are needed"),
                None => "none".into(),
            },
        ),
    }
}

/// On the store, because that is what slots do it to. A detached copy of a mount changes nothing for anybody.
fn mount_calls(config: &Config) -> Finding {
    const NAME: &str = "mount-calls";
    if !is_root() {
        return Finding::untried(NAME);
    }
    let place = if config.store_directory.is_dir() { &config.store_directory } else { Path::new("/") };
    let tried = std::ffi::CString::new(std::os::unix::ffi::OsStrExt::as_bytes(place.as_os_str()))
        .map_err(std::io::Error::from)
        .and_then(|path| clone_tree(AT_FDCWD, &path, Extent::This))
        .and_then(|tree| {
            let attributes =
                Attributes { read_only: true, no_suid: true, no_dev: true, ..Attributes::default() };
            set_attributes(&tree, attributes, Extent::This)
        });
    match tried {
        Ok(()) => Finding::fine(
            NAME,
            format!("open_tree and mount_setattr work on {} (move_mount: see slot)", place.display()),
        ),
        Err(error) => Finding::broken(
            NAME,
            format!("open_tree or mount_setattr fail on {}: {error}", place.display()),
            "boot Linux 5.12 or later, and run outside of containers that filter these calls",
        ),
    }
}

fn overlay() -> Finding {
    const NAME: &str = "overlayfs";
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if known.lines().any(|line| line.split_whitespace().last() == Some("overlay")) {
        return Finding::fine(NAME, "known to the kernel; Darling mounts its prefix with it");
    }
    // A module is loaded by the first mount.
    let module = uname().ok().is_some_and(|names| {
        let release = names.release().to_string_lossy().into_owned();
        fs::read_to_string(format!("/lib/modules/{release}/modules.dep"))
            .is_ok_and(|modules| modules.contains("/overlay.ko"))
    });
    if module {
        Finding::fine(NAME, "a module that the first mount loads")
    } else {
        Finding::broken(
            NAME,
            "not in /proc/filesystems, and no such module",
            "modprobe overlay, or use a kernel with CONFIG_OVERLAY_FS: Darling mounts its prefix with it",
        )
    }
}

fn seccomp() -> Finding {
    const NAME: &str = "seccomp-notification";
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    if actions.split_whitespace().any(|action| action == "user_notif") {
        Finding::fine(NAME, "available, for the repair of signals in Darling")
    } else {
        Finding::warning(
            NAME,
            "not available: a program that dies of a signal takes its whole script with it",
            "use a kernel with CONFIG_SECCOMP_FILTER, 5.0 or later",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_kernels_are_read_whatever_follows_them() {
        assert_eq!(parse("6.1.0-13-amd64"), (6, 1));
        assert_eq!(parse("5.12"), (5, 12));
        assert_eq!(parse("6.18-rc3+"), (6, 18));
        assert_eq!(parse("none"), (0, 0));
        assert!(parse("5.4.0") < OLDEST && parse("5.12.0") >= OLDEST && parse("10.0") >= OLDEST);
    }
}
