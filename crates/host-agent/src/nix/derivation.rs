//! A derivation as its `.drv` file states it, with each output's kind told apart.
//!
//! Nothing is recomputed and nothing is trusted to be consistent: what we build is what the file says, and Nix compares
//! the outputs' paths itself when it asks for them.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::aterm::{AtermError, Cursor};
use super::attributes::{AttributeError, Attributes};
use super::text_encoding;
use crate::request::{DigestAlgorithm, DigestMethod, DigestRequest};
use crate::store_path::{StoreName, StoreNameError};

/// Largest `.drv` file that is read, bytes. An environment that large could not be passed to a builder, and structured
/// attributes that large could not be evaluated.
const SIZE_MAX: u64 = 64 << 20;

/// A derivation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derivation {
    /// Base name of its file.
    pub path: StoreName,
    /// Its outputs by name.
    pub outputs: BTreeMap<String, Output>,
    /// System that builds it.
    pub system: Vec<u8>,
    /// What is executed.
    pub builder: Vec<u8>,
    /// Its arguments, without `argv[0]`.
    pub arguments: Vec<Vec<u8>>,
    /// Its attributes.
    pub attributes: Attributes,
    /// Written as `DrvWithVersion`: has inputs that are themselves derivations made by derivations.
    pub dynamic: bool,
}

/// One output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Its path follows from the derivation.
    InputAddressed(StoreName),
    /// Its path follows from the hash that it must have.
    Fixed {
        /// The path.
        path: StoreName,
        /// How it is hashed.
        digest: DigestRequest,
        /// The hash it must have.
        expected: Vec<u8>,
    },
    /// Its path follows from the hash that it turns out to have.
    Floating,
    /// Its path is not known before inputs are resolved.
    Deferred,
    /// Built anew every time.
    Impure,
    /// Hashed in a way that only newer or experimental Nix has, e.g. `text:sha256`.
    Unknown(String),
}

/// Why a derivation can't be read.
#[derive(Debug, Error)]
pub enum DerivationError {
    /// Its path is not a store path.
    #[error(transparent)]
    Path(#[from] StoreNameError),
    /// Its file can't be read.
    #[error("failed to read {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Its file is larger than the cap.
    #[error("{path} is larger than {SIZE_MAX} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Its file is not a derivation.
    #[error("failed to understand {path} {error}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        error: AtermError,
    },
    /// Its structured attributes are not a JSON object.
    #[error("failed to understand the attributes of {path}: {error}")]
    Attributes {
        /// The file.
        path: PathBuf,
        /// Why.
        error: AttributeError,
    },
}

impl Derivation {
    /// Reads the derivation at this absolute path.
    pub fn read(store: &Path, path: &[u8]) -> Result<Self, DerivationError> {
        let name = StoreName::from_path(store, path)?;
        let path = name.in_store(store);
        let failed = |error| DerivationError::Read { path: path.clone(), error };
        let mut bytes = Vec::new();
        std::fs::File::open(&path)
            .and_then(|file| file.take(SIZE_MAX + 1).read_to_end(&mut bytes))
            .map_err(failed)?;
        if bytes.len() as u64 > SIZE_MAX {
            return Err(DerivationError::TooLarge { path });
        }
        Self::parse(store, name, &bytes)
    }

    /// Understands the contents of a `.drv` file.
    pub fn parse(store: &Path, name: StoreName, bytes: &[u8]) -> Result<Self, DerivationError> {
        let path = || name.in_store(store);
        let fields =
            Fields::parse(store, bytes).map_err(|error| DerivationError::Syntax { path: path(), error })?;
        let attributes = Attributes::new(fields.environment)
            .map_err(|error| DerivationError::Attributes { path: path(), error })?;
        Ok(Self {
            path: name,
            outputs: fields.outputs,
            system: fields.system,
            builder: fields.builder,
            arguments: fields.arguments,
            attributes,
            dynamic: fields.dynamic,
        })
    }

    /// Whether its one output has a hash that is known beforehand: only then the builder sees the network.
    pub fn is_fixed(&self) -> bool {
        self.outputs.len() == 1 && self.outputs.values().all(|output| matches!(output, Output::Fixed { .. }))
    }

    /// Whether only Nix itself can run its builder.
    pub fn is_builtin(&self) -> bool {
        self.builder.starts_with(b"builtin:")
    }
}

impl Output {
    /// Where it will be, as far as that is known.
    pub fn path(&self) -> Option<&StoreName> {
        match self {
            Output::InputAddressed(path) | Output::Fixed { path, .. } => Some(path),
            Output::Floating | Output::Deferred | Output::Impure | Output::Unknown(_) => None,
        }
    }

    fn new(store: &Path, path: &[u8], algorithm: &[u8], hash: &[u8]) -> Result<Self, String> {
        let parse_path = || StoreName::from_path(store, path).map_err(|error| error.to_string());
        match (path, algorithm, hash) {
            (b"", b"", b"") => Ok(Output::Deferred),
            (_, b"", b"") => Ok(Output::InputAddressed(parse_path()?)),
            (_, b"", _) => Err("output has a hash without an algorithm".into()),
            (_, _, b"impure") => Ok(Output::Impure),
            (_, _, b"") => Ok(Output::Floating),
            _ => match digest(algorithm) {
                None => Ok(Output::Unknown(algorithm.escape_ascii().to_string())),
                Some(digest) => {
                    let expected = text_encoding::from_hex(hash)
                        .filter(|bytes| bytes.len() == digest.algorithm.len())
                        .ok_or("hash of a fixed output is not hexadecimal of the algorithm's length")?;
                    Ok(Output::Fixed { path: parse_path()?, digest, expected })
                }
            },
        }
    }
}

fn digest(algorithm: &[u8]) -> Option<DigestRequest> {
    let (method, name) = match algorithm.strip_prefix(b"r:") {
        Some(name) => (DigestMethod::Recursive, name),
        None => (DigestMethod::Flat, algorithm),
    };
    let algorithm = match name {
        b"md5" => DigestAlgorithm::Md5,
        b"sha1" => DigestAlgorithm::Sha1,
        b"sha256" => DigestAlgorithm::Sha256,
        b"sha512" => DigestAlgorithm::Sha512,
        _ => return None,
    };
    Some(DigestRequest { algorithm, method })
}

struct Fields {
    outputs: BTreeMap<String, Output>,
    system: Vec<u8>,
    builder: Vec<u8>,
    arguments: Vec<Vec<u8>>,
    environment: BTreeMap<Vec<u8>, Vec<u8>>,
    dynamic: bool,
}

impl Fields {
    fn parse(store: &Path, bytes: &[u8]) -> Result<Self, AtermError> {
        let mut cursor = Cursor::new(bytes);
        let dynamic = cursor.skip("DrvWithVersion(");
        if dynamic {
            let version = cursor.string()?;
            if version != b"xp-dyn-drv" {
                return Err(cursor.error(format!("unknown version '{}'", version.escape_ascii())));
            }
            cursor.expect(",")?;
        } else {
            cursor.expect("Derive(")?;
        }
        let outputs = cursor.list(|cursor| {
            let [name, path, algorithm, hash] = cursor.tuple()?;
            let name = String::from_utf8(name).map_err(|_| cursor.error("output name is not UTF-8"))?;
            let output =
                Output::new(store, &path, &algorithm, &hash).map_err(|problem| cursor.error(problem))?;
            Ok((name, output))
        })?;
        cursor.expect(",")?;
        // Inputs are not kept: what Nix sends after an accepted question is their whole closure.
        cursor.list(|cursor| {
            cursor.expect("(")?;
            cursor.string()?;
            cursor.expect(",")?;
            cursor.skip_input_node(0)?;
            cursor.expect(")")
        })?;
        cursor.expect(",")?;
        cursor.list(Cursor::string)?;
        cursor.expect(",")?;
        let system = cursor.string()?;
        cursor.expect(",")?;
        let builder = cursor.string()?;
        cursor.expect(",")?;
        let arguments = cursor.list(Cursor::string)?;
        cursor.expect(",")?;
        let environment = cursor.list(|cursor| cursor.tuple().map(|[name, value]| (name, value)))?;
        cursor.expect(")")?;
        cursor.end()?;
        Ok(Self {
            outputs: outputs.into_iter().collect(),
            system,
            builder,
            arguments,
            environment: environment.into_iter().collect(),
            dynamic,
        })
    }
}

#[cfg(test)]
mod tests;
