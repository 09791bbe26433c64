//! Doing the steps, with the record always true: before the first it names what was ours and what will be, after the last
//! only what is.

use std::path::Path;
use std::time::Duration;

use super::files::{Contents, Files};
use super::record::{self, Record};
use super::{InstallError, Plan, Step, show, systemd};
use crate::slot::directory;

/// How long an installation waits for builds of the daemon that it replaces; they may go on for hours.
const PATIENCE: Duration = Duration::from_secs(30);

/// Made by systemd for the socket, and left by it.
const RUNTIME_DIRECTORY: &str = "/run/darling-builder";

/// Does all steps, telling each before it is done.
pub fn carry_out(plan: &Plan, root: &Path, tell: &mut dyn FnMut(&str)) -> Result<(), InstallError> {
    let files = Files::new(root.into());
    let installs = plan.after.is_some();
    let after = plan.after.clone().unwrap_or_else(Record::empty);
    write_record(&files, &plan.before.union(&after))?;
    for step in &plan.steps {
        tell(&show::line(step));
        do_step(step, &files, installs, tell)?;
    }
    if installs {
        return write_record(&files, &after);
    }
    files.remove(Path::new(record::PATH))?;
    if root == Path::new("/") {
        systemd::forget_failures();
    }
    files.remove_if_empty(Path::new(RUNTIME_DIRECTORY))?;
    for directory in plan.before.directories.iter().rev() {
        if !files.remove_if_empty(directory)? {
            tell(&format!("leave {}, in which there is something else", directory.display()));
        }
    }
    Ok(())
}

fn do_step(
    step: &Step,
    files: &Files,
    installs: bool,
    tell: &mut dyn FnMut(&str),
) -> Result<(), InstallError> {
    match step {
        Step::Write { path, contents, .. } => files.write(path, contents)?,
        Step::Remove(path) => files.remove(path)?,
        Step::RemoveState(path) => {
            if !directory::remove_state(&files.on_disk(path)?)? {
                tell(&format!("leave {}, in which there is something else", path.display()));
            }
        }
        Step::Nix(settings, _) => {
            settings.carry_out()?;
        }
        Step::Systemctl(words) => systemd::run(words)?,
        Step::Drain => {
            let limit = installs.then_some(PATIENCE);
            let ended = systemd::drain(limit, || tell("wait for running builds"))?;
            if !ended {
                tell("go on: the old daemon still finishes its builds, then a new one takes over");
            }
        }
    }
    Ok(())
}

fn write_record(files: &Files, record: &Record) -> Result<(), InstallError> {
    Ok(files.write(Path::new(record::PATH), &Contents::Text(record.to_bytes()))?)
}
