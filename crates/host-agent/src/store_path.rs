//! Names of store objects: the part of a store path after `/nix/store/`.
//!
//! Parsed once at the edge, so that nothing behind it has to ask whether a name may leave its directory.
//! Rules: Nix `src/libstore/path.cc` (2.8 to 2.34): 32 characters of Nix base-32, a dash, a name of 1 to 211
//! characters out of `[0-9a-zA-Z+-._?=]`.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Length of the hash part.
pub const HASH_LEN: usize = 32;

/// Longest name after the hash part and its dash.
pub const NAME_MAX: usize = 211;

const BASE32: &[u8] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// The base name of a store path, known to be well formed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StoreName(String);

/// Why something is not the name of a store object.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreNameError {
    /// Not directly below the store directory.
    #[error("'{path}' is not directly inside '{store}'")]
    Outside {
        /// The path given.
        path: String,
        /// The store directory.
        store: String,
    },
    /// Too short, or without a well-formed hash part.
    #[error("'{0}' does not start with a store path's hash")]
    Hash(String),
    /// The name after the hash is empty, too long or has a character that store paths can't have.
    #[error("'{0}' has no valid name after its hash")]
    Name(String),
}

impl StoreName {
    /// Checks a base name.
    pub fn parse(base: &[u8]) -> Result<Self, StoreNameError> {
        let shown = || base.escape_ascii().to_string();
        let hash_ok = base.len() > HASH_LEN
            && base[..HASH_LEN].iter().all(|byte| BASE32.contains(byte))
            && base[HASH_LEN] == b'-';
        if !hash_ok {
            return Err(StoreNameError::Hash(shown()));
        }
        let name = &base[HASH_LEN + 1..];
        let name_ok = !name.is_empty()
            && name.len() <= NAME_MAX
            && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-._?=".contains(byte));
        if !name_ok {
            return Err(StoreNameError::Name(shown()));
        }
        Ok(Self(String::from_utf8_lossy(base).into_owned()))
    }

    /// Checks an absolute store path.
    pub fn from_path(store: &Path, path: &[u8]) -> Result<Self, StoreNameError> {
        use std::os::unix::ffi::OsStrExt;
        let prefix = store.as_os_str().as_bytes();
        match path.strip_prefix(prefix).and_then(|rest| rest.strip_prefix(b"/")) {
            Some(base) if !base.contains(&b'/') => Self::parse(base),
            _ => Err(StoreNameError::Outside {
                path: path.escape_ascii().to_string(),
                store: store.display().to_string(),
            }),
        }
    }

    /// The whole base name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 32 characters that references are found by.
    pub fn hash_part(&self) -> &str {
        &self.0[..HASH_LEN]
    }

    /// What follows the hash part and its dash.
    pub fn name(&self) -> &str {
        &self.0[HASH_LEN + 1..]
    }

    /// The absolute path in this store.
    pub fn in_store(&self, store: &Path) -> PathBuf {
        store.join(&self.0)
    }
}

impl fmt::Display for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl TryFrom<String> for StoreName {
    type Error = StoreNameError;

    fn try_from(base: String) -> Result<Self, Self::Error> {
        Self::parse(base.as_bytes())
    }
}

impl From<StoreName> for String {
    fn from(name: StoreName) -> Self {
        name.0
    }
}
