//! The machine: rights, disk, memory, uids, and what should not be there.

use std::fs;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::statvfs;

use super::{Finding, human, is_root};
use crate::config::Config;
use crate::slot::directory::KEPT;
use crate::slot::kept;

/// Below this much free space a build of any size fails.
const DISK_BROKEN: u64 = 512 << 20;

/// Below this much, larger builds do.
const DISK_LOW: u64 = 5 << 30;

/// What a build should find free besides its prefix.
const MEMORY_LOW: u64 = 1 << 30;

pub(super) fn rights() -> Finding {
    if is_root() {
        Finding::fine("rights", "root")
    } else {
        Finding::warning(
            "rights",
            "not root: namespaces, mounts and a slot of its own are not tried, and Nix's daemon is not looked into",
            "run this as root to try everything",
        )
    }
}

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    vec![disk(config), memory(config), uids(config), leftovers(config), home()]
}

fn disk(config: &Config) -> Finding {
    const NAME: &str = "disk";
    let place = existing(&config.state_directory);
    let free = match statvfs(place) {
        Ok(stat) => stat.blocks_available() * stat.fragment_size(),
        Err(error) => {
            return Finding::warning(
                NAME,
                format!("{}: {error}", place.display()),
                "set `state-directory` to a place that can be reached",
            );
        }
    };
    let detail = format!("{} free on {}", human(free), place.display());
    let fix = "free some (`nix-collect-garbage`), or set `state-directory` to a larger file system";
    match free {
        ..DISK_BROKEN => Finding::broken(NAME, detail, fix),
        DISK_BROKEN..DISK_LOW => Finding::warning(NAME, detail, fix),
        _ => Finding::fine(NAME, detail),
    }
}

/// The directory, or the nearest one above it that is there: the daemon makes the rest.
pub(super) fn existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

fn memory(config: &Config) -> Finding {
    const NAME: &str = "memory";
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let bytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
    };
    let (Some(available), Some(total)) = (bytes("MemAvailable:"), bytes("MemTotal:")) else {
        return Finding::warning(NAME, "/proc/meminfo does not tell", "mount /proc");
    };
    let detail = format!(
        "{} of {} available; {} builds at once, {} slots kept ready",
        human(available),
        human(total),
        config.jobs(),
        config.warm()
    );
    if available < MEMORY_LOW {
        Finding::warning(NAME, detail, "lower `max-jobs` or `warm-slots`, or free some memory")
    } else {
        Finding::fine(NAME, detail)
    }
}

fn uids(config: &Config) -> Finding {
    const NAME: &str = "uids";
    let range = u64::from(config.uid_base)..u64::from(config.uid_base) + u64::from(config.uid_count);
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let taken = accounts(&read("/etc/passwd"))
        .chain(subordinate(&read("/etc/subuid")))
        .find(|(_, theirs)| theirs.start < range.end && range.start < theirs.end);
    match taken {
        None => Finding::fine(NAME, format!("{} to {} belong to no account", range.start, range.end - 1)),
        Some((name, _)) => Finding::broken(
            NAME,
            format!("{} to {} are for slots, and {name} has some of them", range.start, range.end - 1),
            format!(
                "set `uid-base` to the start of a range of {} uids that are free, or `uid-count` to fewer",
                config.uid_count
            ),
        ),
    }
}

type Uids = std::ops::Range<u64>;

/// Names and uids of a passwd file.
fn accounts(passwd: &str) -> impl Iterator<Item = (String, Uids)> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid: u64 = fields.nth(1)?.parse().ok()?;
        Some((format!("the account {name}"), uid..uid + 1))
    })
}

/// Names and ranges of a subuid file.
fn subordinate(subuid: &str) -> impl Iterator<Item = (String, Uids)> {
    subuid.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let first: u64 = fields.next()?.parse().ok()?;
        let count: u64 = fields.next()?.parse().ok()?;
        Some((format!("{name} (in /etc/subuid)"), first..first.saturating_add(count)))
    })
}

fn leftovers(config: &Config) -> Finding {
    const NAME: &str = "leftovers";
    let state = &config.state_directory;
    let entries = |name: &str| fs::read_dir(state.join(name)).map_or(0, |entries| entries.flatten().count());
    if is_root() && daemon_holds(&state.join("lock")) {
        return Finding::fine(NAME, "none but what the running daemon uses");
    }
    match (is_root(), entries("slots") + entries("results")) {
        (false, _) => Finding::untried(NAME),
        (true, 0) => match kept::count(&state.join(KEPT)) {
            0 => Finding::fine(NAME, "none"),
            kept => Finding::fine(
                NAME,
                format!("none; {kept} build directories that were to be kept, in {}/{KEPT}", state.display()),
            ),
        },
        (true, left) => Finding::warning(
            NAME,
            format!("{left} directories in {} of a daemon that crashed", state.display()),
            "start the daemon: it removes them",
        ),
    }
}

/// Whether a daemon has locked its directory.
fn daemon_holds(lock: &Path) -> bool {
    fs::File::open(lock).is_ok_and(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err())
}

fn home() -> Finding {
    const NAME: &str = "homeless-shelter";
    if Path::new("/homeless-shelter").exists() {
        Finding::warning(
            NAME,
            "/homeless-shelter exists, and Nix refuses to build while it does",
            "rmdir /homeless-shelter",
        )
    } else {
        Finding::fine(NAME, "/homeless-shelter does not exist, as it should")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_and_subordinate_ranges_are_read_and_nonsense_is_skipped() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nbroken\nx:y:z\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(
            accounts(passwd).collect::<Vec<_>>(),
            [("the account root".to_owned(), 0..1), ("the account ann".to_owned(), 1000..1001)]
        );
        assert_eq!(
            subordinate("ann:100000:65536\n\nbob:1\n").collect::<Vec<_>>(),
            [("ann (in /etc/subuid)".to_owned(), 100_000..165_536)]
        );
    }

    #[test]
    fn a_directory_that_is_not_there_yet_counts_as_the_one_above_it() {
        assert_eq!(existing(Path::new("/usr/no/such/thing")), Path::new("/usr"));
    }
}
