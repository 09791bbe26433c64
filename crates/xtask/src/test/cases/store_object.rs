//! What must hold of every store object that a build through the hook has made.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::world::session::Session;

impl Session {
    /// Checks that a path is valid, verifies, and is in canonical form.
    pub fn sound(&self, path: &Path) -> Result<()> {
        self.verify(path)?;
        canonical(path)
    }

    /// Checks the direct references of a path, given by their paths.
    pub fn refers_to(&self, path: &Path, expected: &[&Path]) -> Result<()> {
        let got: BTreeSet<PathBuf> =
            self.query(&["-q", "--references"], path)?.into_iter().map(PathBuf::from).collect();
        let expected: BTreeSet<PathBuf> = expected.iter().map(|path| path.to_path_buf()).collect();
        ensure!(got == expected, "references of {}: {got:?}, expected {expected:?}", path.display());
        Ok(())
    }

    /// The output of this name among those a derivation has.
    pub fn output_named(&self, derivation: &Path, name: &str) -> Result<PathBuf> {
        let paths = self.query(&["-q", "--outputs"], derivation)?;
        let path = match name {
            "out" => paths.iter().min_by_key(|path| path.len()),
            _ => paths.iter().find(|path| path.ends_with(&format!("-{name}"))),
        };
        path.map(PathBuf::from).with_context(|| format!("no output {name} in {paths:?}"))
    }
}

/// Mode 0444 or 0555, time 1, owner root, no other kinds of files: what Nix makes of everything in its store.
fn canonical(path: &Path) -> Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let kind = metadata.file_type();
    let mode = metadata.mode() & 0o7777;
    let expected: &[u32] = match () {
        () if kind.is_symlink() => &[0o777],
        () if kind.is_dir() => &[0o555],
        () => &[0o444, 0o555],
    };
    let shown = path.display();
    ensure!(kind.is_symlink() || kind.is_dir() || kind.is_file(), "{shown} is no file, directory or link");
    ensure!(expected.contains(&mode), "{shown} has mode {mode:o}");
    ensure!(metadata.mtime() == 1, "{shown} has time {}", metadata.mtime());
    ensure!(metadata.uid() == 0, "{shown} belongs to {}", metadata.uid());
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            canonical(&entry?.path())?;
        }
    }
    Ok(())
}
