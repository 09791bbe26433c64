//! Upstream's archives, from Debian's source packages.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::nix_roots::apt;
use crate::progress;
use crate::workspace::Workspace;

/// The suite that has the pinned versions.
const SUITE: &str = "trixie";

/// An entry of `fixtures/packages/sources.json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Debian's name of the source package.
    package: String,
    /// File name of upstream's archive in it.
    pub file: String,
    /// Its hash, hexadecimal.
    sha256: String,
}

/// What the fixtures want, by name.
pub fn wanted(project: &Path) -> Result<BTreeMap<String, Source>> {
    let path = project.join("fixtures/packages/sources.json");
    let text = fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("failed to understand {}", path.display()))
}

/// Downloads what is missing in `directory`; every file has the pinned hash then.
pub fn download(workspace: &Workspace, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    let wanted = wanted(&workspace.project)?;
    let missing: Vec<_> = wanted.values().filter(|source| !directory.join(&source.file).exists()).collect();
    if !missing.is_empty() {
        progress(&format!("downloading {} sources from Debian {SUITE} …", missing.len()));
        let apt = apt::Sources::new(&directory.join("apt"), SUITE)?;
        for source in missing {
            let got = apt.download(&source.package, directory)?;
            if !directory.join(&source.file).exists() {
                bail!("Debian {SUITE} has no {} any more; it has {}", source.file, got.join(", "));
            }
        }
        fs::remove_dir_all(directory.join("apt"))?;
    }
    for source in wanted.values() {
        check(&directory.join(&source.file), &source.sha256)?;
    }
    Ok(())
}

fn check(file: &Path, expected: &str) -> Result<()> {
    let output = Command::new("sha256sum").arg(file).output().context("failed to run sha256sum")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let got = text.split(' ').next().unwrap_or_default();
    ensure!(got == expected, "{} has the hash {got}, expected {expected}", file.display());
    Ok(())
}
