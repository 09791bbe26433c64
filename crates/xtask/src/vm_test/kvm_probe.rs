//! Whether guests really run under KVM: a kernel is booted without anything to boot into, and must come to its panic.
//!
//! That /dev/kvm can be opened proves nothing, nor does a guest of a few instructions: there are machines where the one can and
//! the other does, and every kernel dies with an internal error.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::vm_test::backend::qemu::{KVM, PROGRAM};
use crate::world::limited;

/// What a kernel without a root says last. It has managed memory, interrupts and timers by then.
const LAST_WORDS: &str = "Kernel panic - not syncing: VFS";
/// It takes a second or two where KVM works.
const LIMIT: Duration = Duration::from_secs(20);

/// Boots this kernel; an error says why it does not run.
pub fn kernel_runs(kernel: &Path) -> Result<(), String> {
    runs(&KVM, kernel, LIMIT)
}

fn runs(accelerator: &[&str], kernel: &Path, limit: Duration) -> Result<(), String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let console = directory.path().join("console");
    let mut command = Command::new(PROGRAM);
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", "512"])
        .args(accelerator);
    command.arg("-kernel").arg(kernel).args(["-append", "console=ttyS0 panic=-1"]);
    command.arg("-serial").arg(format!("file:{}", console.display()));
    let finished = limited::run(&mut command, limit).map_err(|error| format!("{error:#}"))?;
    let said = fs::read(&console).unwrap_or_default();
    if String::from_utf8_lossy(&said).contains(LAST_WORDS) && finished.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&finished.stderr).into_owned();
    let error = stderr.lines().find(|line| !line.contains("warning:") && !line.trim().is_empty());
    let reason = match error {
        Some(line) => line.trim(),
        None if finished.timed_out => "the kernel of the probe does not get through its start",
        None => "the virtual machine of the probe died",
    };
    Err(reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm_test::debian::{image, on_path};
    use crate::workspace::Workspace;

    fn skipped() -> bool {
        let missing = on_path(PROGRAM).is_none();
        if missing {
            eprintln!("skipped: there is no {PROGRAM}");
        }
        missing
    }

    #[test]
    fn what_is_no_accelerator_or_no_kernel_does_not_run() {
        if skipped() {
            return;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let limit = Duration::from_secs(10);
        assert!(
            runs(&["-accel", "no-such-thing"], file.path(), limit).unwrap_err().contains("no-such-thing")
        );
        assert!(runs(&["-accel", "tcg"], file.path(), limit).is_err());
    }

    #[test]
    fn a_kernel_that_comes_to_its_panic_runs() {
        let workspace = Workspace::find().unwrap();
        let Ok(kernel) = image::kernel_of_made_tree(&workspace) else {
            eprintln!("skipped: no Debian tree has been made (cargo xtask vm-test makes it)");
            return;
        };
        if !skipped() {
            assert_eq!(runs(&["-accel", "tcg"], &kernel, Duration::from_secs(120)), Ok(()));
        }
    }
}
