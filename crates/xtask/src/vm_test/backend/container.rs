//! `--backend container`: the Debian tree, booted by systemd-nspawn on a copy, with this machine's kernel.
//!
//! The container may do what a machine may, as far as namespaces go: slots are made of mounts and namespaces of their own. It has
//! no network but loopback. What it is given is bound in read-only; one directory is shared, for events.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Ending, PROCESS, Prepared, Started};
use crate::vm_test::debian::{self, EVENTS, PAYLOAD, SHARED, TARGET};
use crate::vm_test::plan::Plan;
use crate::vm_test::watch::{Bounds, Running};
use crate::vm_test::{darling_files, payload};
use crate::workspace::Workspace;
use crate::world::Guest;

const BOUNDS: Bounds = Bounds {
    boot: Duration::from_secs(120),
    silence: Duration::from_secs(20),
    grace: Duration::from_secs(20),
};

/// Moves itself into the control groups that it is given, then becomes the command.
const INTO_GROUPS: &str =
    "while [ \"$1\" != -- ]; do echo $$ > \"$1/cgroup.procs\" || exit 1; shift; done; shift; exec \"$@\"";

/// Why not, if so.
pub fn impossible() -> Option<String> {
    crate::world::possible().err()
}

/// Makes the tree, a copy of it, and the payload.
pub fn prepare(workspace: &Workspace, plan: Plan, directory: &Path) -> Result<Prepared> {
    debian::require("systemd-nspawn", "systemd-container")?;
    let tree = debian::tree(workspace)?;
    let plan = Plan { install: true, reboot: true, payload: PAYLOAD.into(), ..plan };
    payload::build(workspace, &plan)?;
    let given = directory.join("payload");
    payload::assemble(workspace, &plan, &given)?;
    let shared = directory.join("run");
    fs::create_dir(&shared)?;
    let root = directory.join("root");
    debian::copy(&tree, &root)?;
    let binds = match plan.guest {
        Guest::Darling => darling_files::needed(&root)?,
        Guest::Linux => Vec::new(),
    };
    let (keep, log) = (plan.keep, directory.join("console.log"));
    let start = move || {
        let events = shared.join(EVENTS);
        File::create(&events)?;
        File::create(&log)?;
        let groups = groups()?;
        let boot = {
            let (groups, log) = (groups.clone(), log.clone());
            let (root, shared, given) = (root.clone(), shared.clone(), given.clone());
            move || {
                let console = File::options().append(true).open(&log)?;
                // Whatever becomes of this program, nothing stays, unless it is to be kept.
                let mut command = Command::new(if keep { "setsid" } else { "setpriv" });
                command.args(if keep { [].as_slice() } else { &["--pdeathsig", "KILL", "--"] });
                command.args(["sh", "-c", INTO_GROUPS, "sh"]).args(&groups).arg("--");
                nspawn(&mut command, &root, &groups);
                command.arg(bind("--bind-ro", &given, PAYLOAD)).arg(bind("--bind", &shared, SHARED));
                command.args(binds.iter().map(|file| bind("--bind-ro", file, &file.display().to_string())));
                command.args(["--boot", &format!("systemd.unit={TARGET}")]);
                command.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console);
                command.spawn().context("failed to run systemd-nspawn")
            }
        };
        let process = boot()?;
        let enter = format!(
            "nsenter --all --target $(pgrep --parent {PROCESS}) -- /bin/bash --login\n  \
             it ends with: kill -KILL $(pgrep --parent {PROCESS})\n  its files: {}",
            root.display()
        );
        // With nobody to supervise it, nspawn ends when the container is reset.
        let again: Option<Box<dyn Fn() -> Result<Child>>> = Some(Box::new(boot));
        let running = Running { process, events, console: log, bounds: BOUNDS, ends_by_itself: false, again };
        Ok(Started { running, enter, ending: Ending::Container(groups) })
    };
    Ok(Prepared { what: "a Debian container on this machine's kernel".into(), start: Box::new(start) })
}

fn nspawn(command: &mut Command, root: &Path, groups: &[PathBuf]) {
    command.arg("systemd-nspawn").arg("--quiet").arg("--directory").arg(root);
    if !groups.is_empty() {
        // Nobody to register with.
        command.args(["--register=no", "--keep-unit"]);
    }
    command.args([
        "--private-network",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        "--capability=all",
        // Slots and Darling may call what they may on a machine.
        "--system-call-filter=@mount @keyring @debug @privileged",
    ]);
}

fn bind(option: &str, from: &Path, to: &str) -> String {
    // A colon or a backslash would have to be escaped.
    let escaped = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    format!("{option}={}:{}", escaped(&from.display().to_string()), escaped(to))
}

/// Without systemd nobody gives the container control groups of its own, and it would take the machine's for its own: made here,
/// one in each hierarchy that systemd uses.
fn groups() -> Result<Vec<PathBuf>> {
    if Path::new("/run/systemd/system").is_dir() {
        return Ok(Vec::new());
    }
    let mut made = Vec::new();
    for hierarchy in ["systemd", "unified", ""] {
        let top = Path::new("/sys/fs/cgroup").join(hierarchy);
        if !top.join("cgroup.procs").exists() {
            continue;
        }
        let group = top.join(format!("vm-test-{}", std::process::id()));
        fs::create_dir(&group).with_context(|| format!("failed to make {}", group.display()))?;
        made.push(group);
    }
    ensure!(!made.is_empty(), "this machine has no control groups (/sys/fs/cgroup)");
    Ok(made)
}

/// Removes a control group, with those below it.
pub fn remove_group(group: &Path) {
    let below = fs::read_dir(group).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_group(&entry.path());
    }
    // Dying processes may be in it for a moment.
    for _ in 0..50 {
        if fs::remove_dir(group).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Kills the container's first process, with which all others die; nspawn follows.
pub fn kill_init(nspawn: &Child) {
    let pid = nspawn.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for child in children.split_ascii_whitespace().filter_map(|child| child.parse().ok()) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), nix::sys::signal::Signal::SIGKILL);
    }
}
