//! A directory tree to be packed: what `host-agent install --package` writes, with licences and pages.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Release, run_command};

/// Writes everything below `root`, for programs in `prefix`.
pub fn fill(release: &Release, root: &Path, prefix: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(root);
    fs::create_dir_all(root)?;
    let mut command = Command::new(release.programs.join("host-agent"));
    command.args(["install", "--package", "--root"]).arg(root).arg("--prefix").arg(prefix);
    run_command(&mut command)
}

/// README, licences and pages, into a directory of their own.
pub fn documents(release: &Release, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory.join("docs"))?;
    let mut names: Vec<PathBuf> = ["README.md", "LICENSE-MIT", "LICENSE-APACHE"].map(PathBuf::from).into();
    for entry in fs::read_dir(release.project.join("docs"))? {
        let name = Path::new("docs").join(entry?.file_name());
        if name.extension().is_some_and(|extension| extension == "md") {
            names.push(name);
        }
    }
    for name in names {
        let to = directory.join(&name);
        fs::copy(release.project.join(&name), &to)
            .with_context(|| format!("failed to copy {}", name.display()))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}
