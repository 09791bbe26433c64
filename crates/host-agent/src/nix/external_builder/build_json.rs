//! `build.json`: all that Nix tells an external builder (Nix `src/libstore/unix/build/external-derivation-builder.cc`,
//! 2.32 to 2.34).
//!
//! Its `version` is the only guard against another meaning, so another version, and any key that version 1 does not
//! have, is refused.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

/// The version that is understood.
const VERSION: u64 = 1;

/// Largest file that is read, bytes: an environment that large could not be passed to any builder.
const SIZE_MAX: u64 = 64 << 20;

/// What is to be built.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BuildJson {
    /// Always 1.
    pub version: u64,
    /// The derivation's system.
    pub system: String,
    /// What is executed.
    pub builder: String,
    /// Its arguments, without `argv[0]`.
    pub args: Vec<String>,
    /// Its complete environment.
    pub env: BTreeMap<String, String>,
    /// Directory on the host that holds `tmp_dir` and this file.
    pub top_tmp_dir: PathBuf,
    /// The build directory on the host.
    pub tmp_dir: PathBuf,
    /// What the build directory is called in `env`.
    pub tmp_dir_in_sandbox: String,
    /// The store's directory in all paths.
    pub store_dir: PathBuf,
    /// Where the store really is.
    pub real_store_dir: PathBuf,
    /// The input closure.
    pub input_paths: Vec<String>,
    /// Where the builder must write: output names and absolute paths.
    pub outputs: BTreeMap<String, String>,
}

/// Why it can't be used.
#[derive(Debug, Error)]
pub enum BuildJsonError {
    /// Not to be read.
    #[error("failed to read {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Larger than the cap.
    #[error("failed to read {0}: it is larger than {SIZE_MAX} bytes")]
    TooLarge(PathBuf),
    /// Another version.
    #[error(
        "Nix describes the build in version {0} of its format, and this darling-builder understands version {VERSION}; \
         use a newer darling-builder, or its build hook"
    )]
    Version(u64),
    /// Not what version 1 looks like.
    #[error("failed to understand the build's description: {0}")]
    Syntax(serde_json::Error),
}

#[derive(Deserialize)]
struct Version {
    version: u64,
}

impl BuildJson {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, BuildJsonError> {
        let failed = |error| BuildJsonError::Read { path: path.to_owned(), error };
        let mut bytes = Vec::new();
        File::open(path).and_then(|file| file.take(SIZE_MAX + 1).read_to_end(&mut bytes)).map_err(failed)?;
        if bytes.len() as u64 > SIZE_MAX {
            return Err(BuildJsonError::TooLarge(path.to_owned()));
        }
        Self::parse(&bytes)
    }

    /// Understands its contents.
    pub fn parse(bytes: &[u8]) -> Result<Self, BuildJsonError> {
        let Version { version } = serde_json::from_slice(bytes).map_err(BuildJsonError::Syntax)?;
        if version != VERSION {
            return Err(BuildJsonError::Version(version));
        }
        serde_json::from_slice(bytes).map_err(BuildJsonError::Syntax)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: &str = r#"{"args":["-c","echo"],"builder":"/bin/sh","env":{"out":"/nix/store/x"},"inputPaths":[],
        "outputs":{"out":"/nix/store/x"},"realStoreDir":"/nix/store","storeDir":"/nix/store","system":"x86_64-darwin",
        "tmpDir":"/nix/var/nix/builds/nix-1-2/build","tmpDirInSandbox":"/build",
        "topTmpDir":"/nix/var/nix/builds/nix-1-2","version":1}"#;

    fn refusal(text: &str) -> String {
        BuildJson::parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn what_nix_writes_is_understood() {
        let json = BuildJson::parse(REAL.as_bytes()).unwrap();
        assert_eq!(json.tmp_dir, Path::new("/nix/var/nix/builds/nix-1-2/build"));
        assert_eq!(json.args, ["-c", "echo"]);
    }

    #[test]
    fn another_version_is_told_as_one_however_it_looks() {
        insta::assert_snapshot!(refusal(r#"{"version":2,"everything":"else"}"#), @"Nix describes the build in version 2 of its format, and this darling-builder understands version 1; use a newer darling-builder, or its build hook");
    }

    #[test]
    fn missing_and_unknown_keys_and_garbage_are_refused() {
        insta::assert_snapshot!(refusal(&REAL.replace("inputPaths", "inputs")), @"failed to understand the build's description: unknown field `inputs`, expected one of `version`, `system`, `builder`, `args`, `env`, `topTmpDir`, `tmpDir`, `tmpDirInSandbox`, `storeDir`, `realStoreDir`, `inputPaths`, `outputs` at line 1 column 79");
        insta::assert_snapshot!(refusal(&REAL.replace(r#""version":1"#, r#""version":1,"x":2"#)).split(',').next().unwrap_or_default(), @"failed to understand the build's description: unknown field `x`");
        insta::assert_snapshot!(refusal("{}"), @"failed to understand the build's description: missing field `version` at line 1 column 2");
        insta::assert_snapshot!(refusal("[[[["), @"failed to understand the build's description: invalid type: sequence, expected u64 at line 1 column 1");
    }

    #[test]
    fn a_file_without_end_is_refused_without_being_read() {
        let error = BuildJson::read(Path::new("/dev/zero")).unwrap_err().to_string();
        insta::assert_snapshot!(error, @"failed to read /dev/zero: it is larger than 67108864 bytes");
    }
}
