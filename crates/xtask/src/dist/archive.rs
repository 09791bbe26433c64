//! The archive: one directory to be unpacked anywhere, from which `bin/host-agent install` works.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use super::{Release, packing, run_command, staging};

/// Its units name the programs here: where `install` puts them.
const PREFIX: &str = "/usr/local";

/// Makes it.
pub fn make(release: &Release) -> Result<PathBuf> {
    let name = format!("darling-builder-{}-x86_64-linux", release.version);
    let staged = release.out.join("archive");
    staging::fill(release, &staged, Path::new(PREFIX))?;
    let top = staged.join(&name);
    fs::rename(staged.join(PREFIX.trim_start_matches('/')), &top)?;
    staging::documents(release, &top)?;
    let plain = release.out.join(format!("{name}.tar"));
    packing(&plain);
    run_command(
        Command::new("tar")
            .current_dir(&staged)
            .args(["--create", "--format=gnu", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
            .arg("--mode=u+rw,go+r,go-w")
            .arg(format!("--mtime=@{}", release.epoch))
            .arg("--file")
            .arg(&plain)
            .arg(&name),
    )?;
    // Without name and time in the header.
    run_command(Command::new("gzip").args(["--no-name", "--best", "--force"]).arg(&plain))?;
    fs::remove_dir_all(&staged)?;
    let packed = plain.with_extension("tar.gz");
    ensure!(packed.is_file(), "gzip has not made {}", packed.display());
    Ok(packed)
}
