//! The files of this machine's Darling, and those libraries it needs that another machine has not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::darling;

/// Paths to show to, or copy into, a machine whose root is at `root`, at the same places.
pub fn needed(root: &Path) -> Result<Vec<PathBuf>> {
    let launcher = darling::on_path().context("`darling` is not on PATH")?;
    let launcher = fs::canonicalize(launcher)?;
    let prefix = launcher.parent().and_then(Path::parent).context("darling is in no bin directory")?;
    let server = prefix.join("bin/darlingserver");
    let tree = prefix.join("libexec/darling");
    for path in [&server, &tree] {
        ensure!(path.exists(), "there is {}, but no {}", launcher.display(), path.display());
    }
    let mut paths = vec![launcher.clone(), server.clone(), tree];
    for program in [&launcher, &server] {
        let libraries = libraries(program)?;
        let missing = libraries
            .into_iter()
            .filter(|library| !root.join(library.strip_prefix("/").unwrap_or(library)).exists());
        paths.extend(missing);
    }
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// Absolute paths among what ldd says, such as `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("failed to run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// Directory of a payload with [`needed`] below it.
pub const COPIES: &str = "darling";

/// Copies what a machine with that root needs below `to`.
pub fn copy_into(root: &Path, to: &Path) -> Result<()> {
    for path in needed(root)? {
        let target = to.join(path.strip_prefix("/").unwrap_or(&path));
        fs::create_dir_all(target.parent().context("no directory")?)?;
        crate::vm_test::debian::copy(&path, &target)?;
    }
    Ok(())
}
