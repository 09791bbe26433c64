//! Whether guests really run: a guest of seven bytes of code is run, and must end in its own way.
//!
//! That /dev/kvm can be opened proves nothing: there are machines where it can and every guest dies with an internal error.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::vm_test::backend::qemu::PROGRAM;
use crate::world::limited;

/// Writes a byte to the port of QEMU's exit device, then halts: `mov al, 0x2a; out 0xf4, al; hlt; jmp $-1`.
const CODE: [u8; 7] = [0xb0, 0x2a, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd];
/// What QEMU makes of that byte: twice, and one more.
const EXIT: i32 = 0x2a * 2 + 1;
/// A guest that runs ends within a second.
const LIMIT: Duration = Duration::from_secs(20);

/// Runs the guest with this accelerator; an error says why it does not.
pub fn runs(accelerator: &str) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    // A boot sector.
    let mut disk = vec![0; 512 * 2880];
    disk[..CODE.len()].copy_from_slice(&CODE);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let directory = tempfile::tempdir().map_err(|error| text(&error))?;
    let file = directory.path().join("probe.img");
    fs::write(&file, disk).map_err(|error| text(&error))?;
    let mut command = Command::new(PROGRAM);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", "16"]);
    command.args(["-accel", accelerator, "-device", "isa-debug-exit,iobase=0xf4,iosize=1"]);
    command.arg("-drive").arg(format!("if=floppy,format=raw,readonly=on,file={}", file.display()));
    let finished = limited::run(&mut command, LIMIT).map_err(|error| format!("{error:#}"))?;
    if finished.status.code() == Some(EXIT) {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&finished.stderr).into_owned();
    let said = stderr.lines().next().unwrap_or(if finished.timed_out { "it never ends" } else { "it died" });
    Err(format!("no guest runs with {accelerator}: {}", said.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_runs_is_told_from_one_that_does_not() {
        if crate::vm_test::debian::on_path(PROGRAM).is_none() {
            eprintln!("skipped: there is no {PROGRAM}");
            return;
        }
        assert_eq!(runs("tcg"), Ok(()));
        assert!(runs("no-such-accelerator").unwrap_err().contains("no-such-accelerator"));
    }
}
