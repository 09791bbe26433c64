//! What an installation has put where, so that it can be taken away again.
//!
//! Kept apart from the daemon's own directory, whose place the user may change. Written before the first file is, so that an
//! installation that breaks off can be undone as well; for each file the hash of what we wrote, so that a file that somebody
//! has changed since is known.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files::Digest;

/// Where it is.
pub const PATH: &str = "/var/lib/darling-builder/installed.json";

const VERSION: u32 = 1;

/// Files and directories of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Version of this format.
    version: u32,
    /// Files and symbolic links with what we wrote there (see [`super::files::Digest`]): one, or two while it is replaced.
    pub files: BTreeMap<PathBuf, BTreeSet<Digest>>,
    /// Directories that did not exist before.
    pub directories: BTreeSet<PathBuf>,
}

impl Record {
    /// Nothing is installed.
    pub fn empty() -> Self {
        Self { version: VERSION, ..Self::default() }
    }

    /// Whether what is at `path` was written by us, and not changed since.
    pub fn wrote(&self, path: &Path, digest: &Digest) -> bool {
        self.files.get(path).is_some_and(|digests| digests.contains(digest))
    }

    /// Everything that either names: true at any moment of going from one to the other.
    pub fn union(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for (path, digests) in &other.files {
            both.files.entry(path.clone()).or_default().extend(digests.iter().cloned());
        }
        both.directories.extend(other.directories.iter().cloned());
        both
    }

    /// Understands a record; the reason if it can't.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let record: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if record.version != VERSION {
            return Err(format!("it is of version {}, and this program knows {VERSION}", record.version));
        }
        // Whatever it names may be removed: not anything that a path can be made to mean.
        let mut paths = record.files.keys().chain(&record.directories);
        match paths.find(|path| !is_plain(path)) {
            Some(path) => Err(format!("it names {}", path.display())),
            None => Ok(record),
        }
    }

    /// As written to disk.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Maps of strings: nothing that JSON can't say.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

fn is_plain(path: &Path) -> bool {
    use std::path::Component;
    path.is_absolute()
        && path.components().skip(1).all(|component| matches!(component, Component::Normal(_)))
        && path.components().count() > 1
}
