//! `--backend qemu`: a Debian virtual machine with Debian's cloud kernel, booted directly; its disk is the Debian tree.
//!
//! The console is the first serial port, events are the second. KVM is used only if a guest has really run with it.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Ending, PROCESS, Prepared, Started};
use crate::vm_test::debian::{self, EVENTS, PAYLOAD, TARGET, image};
use crate::vm_test::plan::Plan;
use crate::vm_test::watch::{Bounds, Running};
use crate::vm_test::{darling_files, kvm_probe, payload};
use crate::workspace::Workspace;
use crate::world::Guest;

/// The emulator.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// With the machine's processor.
pub const KVM: [&str; 4] = ["-accel", "kvm", "-cpu", "host"];
/// With an emulated one.
const TCG: [&str; 4] = ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"];
const PROCESSORS: &str = "2";
const MEMORY_MIB: &str = "4096";

const KVM_BOUNDS: Bounds = Bounds {
    boot: Duration::from_secs(180),
    silence: Duration::from_secs(30),
    grace: Duration::from_secs(30),
};
const TCG_BOUNDS: Bounds = Bounds {
    boot: Duration::from_secs(480),
    silence: Duration::from_secs(90),
    grace: Duration::from_secs(60),
};
/// How much longer than on an ordinary machine everything may take when the processor is emulated.
const TCG_SLOWNESS: u32 = 8;

/// Why not, if so.
pub fn impossible() -> Option<String> {
    if debian::on_path(PROGRAM).is_none() && !nix::unistd::geteuid().is_root() {
        return Some(format!("there is no {PROGRAM}, and installing it needs root"));
    }
    // The Debian tree is made by chroot.
    (!nix::unistd::geteuid().is_root()).then(|| "needs root to make a Debian tree".into())
}

/// Why KVM can't be used, if so; tried once, with the kernel that is to run.
pub fn without_kvm(workspace: &Workspace) -> Result<Option<String>> {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    debian::require(PROGRAM, "qemu-system-x86")?;
    let kernel = image::bootable(workspace)?.kernel;
    Ok(REASON.get_or_init(|| kvm_probe::kernel_runs(&kernel).err()).clone())
}

/// Makes the disk and the payload's.
pub fn prepare(workspace: &Workspace, plan: Plan, directory: &Path) -> Result<Prepared> {
    let without_kvm = without_kvm(workspace)?;
    let kvm = without_kvm.is_none();
    let bootable = image::bootable(workspace)?;
    let slowness = if kvm { 1 } else { TCG_SLOWNESS };
    let plan = Plan { install: true, reboot: true, payload: PAYLOAD.into(), slowness, ..plan };
    payload::build(workspace, &plan)?;
    let given = directory.join("payload");
    payload::assemble(workspace, &plan, &given)?;
    if plan.guest == Guest::Darling {
        darling_files::copy_into(&debian::tree(workspace)?, &given.join(darling_files::COPIES))?;
    }
    let payload_image = directory.join("payload.img");
    image::of_directory(&given, &payload_image, "vm-payload")?;

    let (directory, keep) = (directory.to_owned(), plan.keep);
    let start = move || {
        let [console, events] = ["console.log", EVENTS].map(|name| directory.join(name));
        File::create(&events)?;
        File::create(&console)?;
        let mut command = Command::new(if keep { "setsid" } else { "setpriv" });
        if !keep {
            command.args(["--pdeathsig", "KILL", "--"]);
        }
        command.arg(PROGRAM).args(["-nodefaults", "-no-user-config", "-display", "none"]);
        command.args(if kvm { KVM } else { TCG });
        command.args(["-smp", PROCESSORS, "-m", MEMORY_MIB]);
        command.arg("-kernel").arg(&bootable.kernel).arg("-initrd").arg(&bootable.initrd);
        command.args([
            "-append",
            &format!("root=/dev/vda rw console=ttyS0 net.ifnames=0 systemd.unit={TARGET}"),
        ]);
        command.arg("-drive").arg(drive(&bootable.root, "snapshot=on"));
        command.arg("-drive").arg(drive(&payload_image, "readonly=on"));
        // Relative, because the path of a socket is short.
        command
            .args(["-chardev", "socket,id=console,path=console.sock,server=on,wait=off,logfile=console.log"]);
        command.args(["-serial", "chardev:console"]);
        command.args(["-chardev", &format!("file,id=events,path={EVENTS}"), "-serial", "chardev:events"]);
        command.args(["-device", "virtio-rng-pci"]);
        let process = command
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(directory.join("qemu.log"))?)
            .spawn()
            .with_context(|| format!("failed to run {PROGRAM}"))?;
        let enter = format!(
            "socat -,raw,echo=0,escape=0x1d unix-connect:{}   (root is logged in; Ctrl-] leaves)\n  \
             it ends with: kill {PROCESS}",
            directory.join("console.sock").display()
        );
        let bounds = if kvm { KVM_BOUNDS } else { TCG_BOUNDS };
        let running = Running { process, events, console, bounds, ends_by_itself: false, again: None };
        Ok(Started { running, enter, ending: Ending::Process })
    };
    let what = match without_kvm {
        None => "a Debian virtual machine under KVM".into(),
        Some(reason) => format!(
            "a Debian virtual machine with an emulated processor, because KVM does not work: {reason}"
        ),
    };
    Ok(Prepared { what, start: Box::new(start) })
}

fn drive(file: &Path, options: &str) -> String {
    // A comma in the name would have to be doubled.
    format!("if=virtio,format=raw,{options},file={}", file.display().to_string().replace(',', ",,"))
}
