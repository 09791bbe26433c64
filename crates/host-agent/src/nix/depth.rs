//! Outputs that are nested too deeply for the Nix that is to have them.
//!
//! Nix reads and writes its archives by recursion, in a version from 2.24 on on a stack of 128 KiB: 2.26.3 overwrites its own
//! memory when it copies what is nested some 110 levels deep (CVE-2026-44028, from 2.24.4 on). The releases that mend
//! it (2.28.7, 2.29.4, 2.30.5, 2.31.5, 2.32.8, 2.33.6, 2.34.7, and 2.35) take 64 levels, the top being the first
//! (`narMaxDepth` in `src/libutil/archive.cc`), and neither dump nor restore more. So whatever is deeper is of no use to
//! any of them; a Nix from before takes what it can dump, and is asked to. Lix has the same fault from 2.93.0 on.

use std::path::Path;

use thiserror::Error;

use super::conf::version::{NixVersion, VersionError};
use super::store_command::{NixProgram, StoreCommandError, succeed};
use crate::request::PreparedOutput;

/// Levels that every Nix takes.
const LEVELS: u64 = 64;

/// Why an output can't be taken for its depth.
#[derive(Debug, Error)]
pub enum DepthError {
    /// No Nix of this kind takes it.
    #[error(
        "path '{path}' is nested {levels} levels deep, and {nix} can't copy more than {LEVELS} (CVE-2026-44028)"
    )]
    TooDeep {
        /// The output.
        path: String,
        /// How deep it is, the top being the first level.
        levels: u64,
        /// The Nix that asks.
        nix: NixVersion,
    },
    /// This one does not.
    #[error("path '{path}' is nested {levels} levels deep, and {nix} can't dump it: {error}")]
    NotDumped {
        /// The output.
        path: String,
        /// How deep it is, the top being the first level.
        levels: u64,
        /// The Nix that asks.
        nix: NixVersion,
        /// What it said.
        error: StoreCommandError,
    },
    /// The Nix that asks does not say what it is.
    #[error(transparent)]
    Ask(#[from] StoreCommandError),
    /// Nor is it to be told from what it says.
    #[error(transparent)]
    Version(#[from] VersionError),
}

impl DepthError {
    /// Whether the output is at fault, and not the machine.
    pub fn is_about_the_output(&self) -> bool {
        matches!(self, Self::TooDeep { .. } | Self::NotDumped { .. })
    }
}

/// Checks one output, which is staged and will be at its path in `store`. Only a deep one costs anything.
pub fn check(output: &PreparedOutput, nix: &NixProgram, store: &Path) -> Result<(), DepthError> {
    let levels = output.depth.saturating_add(1);
    if levels <= LEVELS {
        return Ok(());
    }
    let path = output.path.in_store(store).display().to_string();
    let version: NixVersion = nix.version_text()?.parse()?;
    if version.limits_depth() {
        return Err(DepthError::TooDeep { path, levels, nix: version });
    }
    let mut dump = nix.command("nix-store");
    dump.arg("--dump").arg(output.staged.as_path());
    succeed("nix-store", dump).map_err(|error| DepthError::NotDumped { path, levels, nix: version, error })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::store_path::StoreName;

    /// A program that answers as a Nix of this version does, and dumps or not.
    fn checked(depth: u64, version: &str, dumps: bool) -> Result<(), String> {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("nix");
        let script = format!(
            "#!/bin/sh\ncase $1 in --version) echo '{version}';; --dump) {};; esac\n",
            if dumps { "echo nar" } else { "echo 'too deep for me' >&2; exit 1" }
        );
        let written = directory.path().join("written");
        fs::write(&written, script).unwrap();
        fs::set_permissions(&written, fs::Permissions::from_mode(0o755)).unwrap();
        // Copied by another process: what a thread has open for writing can't be executed.
        assert!(std::process::Command::new("cp").arg(&written).arg(&program).status().unwrap().success());
        let output = PreparedOutput {
            name: "out".into(),
            path: StoreName::parse(b"00000000000000000000000000000000-x").unwrap(),
            staged: "/staged".into(),
            nar_sha256: [0; 32],
            nar_size: 0,
            references: Vec::new(),
            digest: None,
            depth,
        };
        check(&output, &NixProgram::at(program), Path::new("/nix/store")).map_err(|error| error.to_string())
    }

    #[test]
    fn sixty_four_levels_are_no_question_to_any_nix() {
        assert_eq!(checked(63, "no version", false), Ok(()));
    }

    #[test]
    fn one_level_more_is_for_those_that_take_it() {
        let refusal = |version| checked(64, version, true).unwrap_err();
        insta::assert_snapshot!(refusal("nix-store (Nix) 2.34.8"), @"path '/nix/store/00000000000000000000000000000000-x' is nested 65 levels deep, and Nix 2.34 can't copy more than 64 (CVE-2026-44028)");
        insta::assert_snapshot!(refusal("nix (Lix, like Nix) 2.93.1"), @"path '/nix/store/00000000000000000000000000000000-x' is nested 65 levels deep, and Lix 2.93 can't copy more than 64 (CVE-2026-44028)");
        assert_eq!(checked(64, "nix-store (Nix) 2.8.0", true), Ok(()));
        insta::assert_snapshot!(checked(3000, "nix-store (Nix) 2.8.0", false).unwrap_err(), @"path '/nix/store/00000000000000000000000000000000-x' is nested 3001 levels deep, and Nix 2.8 can't dump it: `nix-store` failed (exit status: 1): too deep for me");
        insta::assert_snapshot!(refusal("what?"), @"failed to find a version in 'what?'; it looks like 2.34.8");
    }
}
