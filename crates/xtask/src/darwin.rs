//! `cargo xtask darwin`: `darwin-agent` as a Mach-O program, made on Linux without an Apple SDK.
//!
//! zig links and brings the stubs of libSystem; the standard library comes from rustup or is compiled from Debian's
//! sources. The result is checked here, byte for byte, because what Darling's loader dislikes shows as a crash of a
//! build much later: see [`mach_o`].

pub mod install;
mod mach_o;
pub mod std_library;
pub mod zig;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::flags::DarwinFlags;
use crate::progress;
use crate::workspace::Workspace;

/// What rustc calls the guest.
const TARGET: &str = "x86_64-apple-darwin";

/// Oldest macOS that the result runs on; Darling says it is this one.
const MINIMUM: mach_o::Version = mach_o::Version { major: 11, minor: 0 };

/// Largest result, bytes: it is copied into every slot.
const SIZE_MAX: usize = 3 << 19;

/// Builds, repairs and checks `target/darwin/darwin-agent`.
pub fn run(workspace: &Workspace, flags: &DarwinFlags) -> Result<()> {
    if let Some(file) = &flags.check {
        let bytes = fs::read(file).with_context(|| format!("failed to read {}", file.display()))?;
        check(&bytes, file)?;
        println!("{}: {}", file.display(), mach_o::MachO::parse(&bytes)?);
        return Ok(());
    }
    let directory = workspace.target.join("darwin");
    fs::create_dir_all(&directory)?;
    let zig = zig::find(flags.zig.as_deref(), &directory)?;
    let linker = zig::linker(&zig, &directory)?;
    let toolchain = std_library::Toolchain::find(flags.std)?;
    progress(&format!("building darwin-agent for {TARGET} with {toolchain} …"));
    let built = toolchain.build(workspace, &directory, &linker)?;

    let mut bytes = fs::read(&built).with_context(|| format!("failed to read {}", built.display()))?;
    let aligned = mach_o::align_data(&mut bytes)?;
    check(&bytes, &built)?;
    let result = directory.join("darwin-agent");
    replace(&result, &bytes)?;
    println!("{}: {}", result.display(), mach_o::MachO::parse(&bytes)?);
    println!("    {} bytes; {aligned} data segments rounded up to whole pages", bytes.len());
    Ok(())
}

/// Everything that must hold for a program to be started in Darling.
fn check(bytes: &[u8], path: &Path) -> Result<()> {
    let program = mach_o::MachO::parse(bytes)
        .with_context(|| format!("{} is no program for the guest", path.display()))?;
    let mut faults = program.faults(MINIMUM);
    if bytes.len() > SIZE_MAX {
        faults.push(format!("it has {} bytes, more than {SIZE_MAX}", bytes.len()));
    }
    ensure!(faults.is_empty(), "{} is unfit for the guest:\n    {}", path.display(), faults.join("\n    "));
    Ok(())
}

/// Puts a new file in place at once: a slot that is being prepared copies the old one or the new one.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, bytes).with_context(|| format!("failed to write {}", new.display()))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    fs::rename(&new, path).with_context(|| format!("failed to replace {}", path.display()))
}
