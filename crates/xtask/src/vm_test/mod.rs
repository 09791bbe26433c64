//! `cargo xtask vm-test`: the product, installed in a machine and tried in twelve stages.
//!
//! The stages run *inside* the machine ([`runner`]), by whatever a user would use there, and say what they see in events
//! ([`event`]). Outside are places to have a machine ([`backend`]), and someone who watches it ([`watch`]). So stages and report are the
//! same in a NixOS virtual machine, a Debian one, a container, and here.

mod backend;
mod darling_files;
mod debian;
mod event;
mod guide;
mod installation;
mod kvm_probe;
mod machine;
mod manifest;
mod nix;
mod payload;
mod plan;
mod report;
pub mod runner;
mod ssh;
mod stage;
mod stages;
mod watch;

pub use backend::Backend;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::flags::{GuestFlag, VmTestFlags};
use crate::progress;
use crate::workspace::Workspace;
use crate::world::Guest;
use plan::Plan;
use report::{Report, printable};
use watch::Seen;

/// Below cargo's target directory.
const DIRECTORY: &str = "vm-test";

/// Runs the stages in the place that the flags name, or the best that works; `false` if one failed.
pub fn run(workspace: &Workspace, flags: &VmTestFlags) -> Result<bool> {
    let mut stages = if flags.stage.is_empty() { stage::all_numbers() } else { flags.stage.clone() };
    stages.extend(flags.broken);
    stages.sort_unstable();
    stages.dedup();
    stages.iter().try_for_each(|number| stage::by_number(*number).map(drop))?;

    let (backend, because) = choose(workspace, flags.backend)?;
    let guest = match flags.guest {
        GuestFlag::Auto => backend::default_guest(workspace, backend)?,
        GuestFlag::Darling => Guest::Darling,
        GuestFlag::StandIn => Guest::Linux,
    };
    let plan = Plan {
        guest,
        stages,
        payload: PathBuf::new(),
        install: false,
        keep: flags.keep,
        user: "tester".into(),
        reboot: false,
        slowness: 1,
        broken: flags.broken,
    };
    let directory = fresh_directory(&workspace.target.join(DIRECTORY), backend)?;
    let prepared = backend.prepare(workspace, plan, &directory)?;
    progress(&format!("{}: {}", backend.name(), prepared.what));
    let began = Instant::now();
    let mut started = (prepared.start)()?;
    let seen = watch::until_end(&mut started.running, &mut |line| {
        progress(&format!("{:>6.1} s  {}", began.elapsed().as_secs_f64(), printable(line)));
    });
    let report = match seen {
        Ok(seen) => report_of(backend, because, guest, seen, began),
        Err(error) => {
            started.stop();
            return Err(error);
        }
    };
    if flags.keep {
        progress(&format!("the machine runs on; to enter it:\n  {}", started.enter()));
    } else {
        started.stop();
    }
    write(workspace, flags, &report, &directory)?;
    if !flags.keep {
        fs::remove_dir_all(&directory)
            .with_context(|| format!("failed to remove {}", directory.display()))?;
    }
    Ok(report.succeeded())
}

/// The place that was asked for, or the best; and why that one.
fn choose(workspace: &Workspace, wanted: Option<Backend>) -> Result<(Backend, String)> {
    if let Some(backend) = wanted {
        return match backend.impossible(workspace) {
            Some(reason) => bail!("{} can't be used here: {reason}", backend.name()),
            None => Ok((backend, "asked for".into())),
        };
    }
    let mut reasons = Vec::new();
    for backend in Backend::ALL {
        match backend.impossible(workspace) {
            None => {
                reasons.push(format!("{} is the best that works", backend.name()));
                let because = reasons.join("; ");
                progress(&because);
                return Ok((backend, because));
            }
            Some(reason) => reasons.push(format!("not {}: {reason}", backend.name())),
        }
    }
    bail!("no place to run the stages in:\n  {}", reasons.join("\n  "))
}

/// A directory for one machine.
fn fresh_directory(target: &Path, backend: Backend) -> Result<PathBuf> {
    let directory = target.join(format!("{}-{}", backend.name(), std::process::id()));
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

fn report_of(backend: Backend, because: String, guest: Guest, seen: Seen, began: Instant) -> Report {
    Report {
        backend: backend.name().into(),
        chosen_because: because,
        guest: guest.as_str().into(),
        machine: seen.machine,
        seconds: began.elapsed().as_secs_f64(),
        rows: seen.rows,
        broken: seen.broken,
        journal: seen.journal,
    }
}

/// Prints the report, and writes it in each form; after a failure, what the machine has left to read as well.
fn write(workspace: &Workspace, flags: &VmTestFlags, report: &Report, directory: &Path) -> Result<()> {
    let kept = workspace.target.join(DIRECTORY);
    let json = serde_json::to_string_pretty(&report.json())?;
    let junit = flags.junit.clone().unwrap_or_else(|| kept.join("junit.xml"));
    fs::write(kept.join("report.json"), &json)?;
    fs::write(&junit, report.junit()?).with_context(|| format!("failed to write {}", junit.display()))?;
    match flags.json {
        true => println!("{json}"),
        false => print!("\n{}", report.text()),
    }
    if report.succeeded() {
        return Ok(());
    }
    let failed = kept.join(format!("{}-failed", report.backend));
    let _ = fs::remove_dir_all(&failed);
    fs::create_dir_all(&failed)?;
    for name in ["console.log", "events", "run/events", "qemu.log"] {
        let from = directory.join(name);
        if let Some(name) = from.file_name().filter(|_| from.exists()) {
            fs::copy(&from, failed.join(name))?;
        }
    }
    if let Some(journal) = &report.journal {
        fs::write(failed.join("journal.log"), journal)?;
    }
    progress(&format!("console, events and journal: {}", failed.display()));
    Ok(())
}
