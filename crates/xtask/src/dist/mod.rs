//! `cargo xtask dist`: what users install, as an archive and as a Debian package, in `target/dist`.
//!
//! What belongs to it is decided by `host-agent install --package`, so that archive, package and installer can't differ.
//! The bytes depend on the sources and where they are, the compiler and `SOURCE_DATE_EPOCH` alone: names are sorted, owners
//! are root, times are that time.

mod archive;
mod debian;
mod glibc;
mod staging;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::binaries::{self, Profile};
use crate::flags::{DarwinFlags, DistFlags};
use crate::workspace::Workspace;
use crate::{darwin, progress};

/// What is packed.
#[derive(Debug)]
struct Release {
    /// `0.1.0`.
    version: &'static str,
    /// Seconds since 1970 that every file is of.
    epoch: u64,
    /// The repository.
    project: PathBuf,
    /// A directory with `host-agent` and both agents.
    programs: PathBuf,
    /// Where the results go.
    out: PathBuf,
}

/// Builds all and prints where it is.
pub fn run(workspace: &Workspace, flags: &DistFlags) -> Result<()> {
    let out = workspace.target.join("dist");
    let programs = workspace.target.join("dist-programs");
    for directory in [&out, &programs] {
        let _ = fs::remove_dir_all(directory);
        fs::create_dir_all(directory)?;
    }
    let epoch = epoch(&workspace.project)?;
    collect(workspace, flags, &programs)?;
    let version = env!("CARGO_PKG_VERSION");
    let release = Release { version, epoch, project: workspace.project.clone(), programs, out: out.clone() };

    let mut made = vec![archive::make(&release)?];
    match debian::make(&release)? {
        Some(package) => made.push(package),
        None => println!("no dpkg-deb on PATH: no Debian package was made"),
    }
    made.push(checksums(&out, &made)?);
    for path in made {
        println!("{} ({} bytes)", path.display(), path.metadata()?.len());
    }
    Ok(())
}

/// Builds the programs and puts them side by side under the names that they are installed by.
fn collect(workspace: &Workspace, flags: &DistFlags, programs: &Path) -> Result<()> {
    binaries::build(workspace, Profile::Release)?;
    let macho = match &flags.darwin_agent {
        Some(file) => file.clone(),
        None => {
            darwin::run(workspace, &DarwinFlags::default())?;
            workspace.target.join("darwin/darwin-agent")
        }
    };
    let release = workspace.target.join(Profile::Release.directory());
    for (from, name) in [
        (release.join("host-agent"), "host-agent"),
        (release.join("darwin-agent"), "darwin-agent"),
        (macho, "darwin-agent-macho"),
    ] {
        fs::copy(&from, programs.join(name)).with_context(|| format!("failed to copy {}", from.display()))?;
    }
    Ok(())
}

/// `SOURCE_DATE_EPOCH`, else the time of the last commit.
fn epoch(project: &Path) -> Result<u64> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => {
            let output =
                Command::new("git").current_dir(project).args(["log", "-1", "--format=%ct"]).output()?;
            String::from_utf8(output.stdout)?
        }
    };
    let text = text.trim();
    text.parse().with_context(|| format!("SOURCE_DATE_EPOCH or the commit's time is no number: '{text}'"))
}

/// `SHA256SUMS`, as sha256sum(1) checks it.
fn checksums(out: &Path, files: &[PathBuf]) -> Result<PathBuf> {
    let names = files.iter().filter_map(|path| path.file_name());
    let output = Command::new("sha256sum").current_dir(out).args(names).output()?;
    ensure!(output.status.success(), "sha256sum: {}", String::from_utf8_lossy(&output.stderr));
    let path = out.join("SHA256SUMS");
    fs::write(&path, output.stdout)?;
    Ok(path)
}

/// Runs a command to its end.
fn run_command(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("failed to start {:?}", command.get_program()))?;
    ensure!(
        output.status.success(),
        "{:?} failed: {}",
        command.get_program(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Says what takes time.
fn packing(path: &Path) {
    progress(&format!("packing {} …", path.display()));
}
