//! Files below a root: what is there, and putting things there or taking them away.
//!
//! Paths are those that they will have for the system; symbolic links on the way are followed below the root. A file is
//! written beside its place and renamed over it, so that whoever starts or reads it meanwhile has the old one or the new.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::nix::conf::tree::{Tree, TreeError};

/// Largest text that is shown when it changes, bytes.
const TEXT_MAX: u64 = 256 << 10;

/// A file could not be dealt with.
#[derive(Debug, Error)]
pub enum FileError {
    /// The system refused.
    #[error("failed to {what} {path}: {error}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Its path leads nowhere.
    #[error(transparent)]
    Path(#[from] TreeError),
    /// A directory or such is in the way.
    #[error("failed to write {path}: something that is no file is there", path = .0.display())]
    InTheWay(PathBuf),
}

type Result<T> = std::result::Result<T, FileError>;

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |error| FileError::Io { what, path: path.into(), error }
}

/// What a file is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// This text, mode 0644.
    Text(Vec<u8>),
    /// A copy of this program (a path of the running system, not below the root), mode 0755.
    Program(PathBuf),
    /// A symbolic link with this target.
    Link(PathBuf),
}

/// What a file contains, short: `sha256:` and 64 hexadecimal digits, or `link:` and the target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Digest(String);

impl Contents {
    /// What will be there.
    pub fn digest(&self) -> Result<Digest> {
        match self {
            Contents::Text(text) => {
                Ok(hash(&mut text.as_slice()).map_err(io_error("hash", Path::new("a text")))?)
            }
            Contents::Program(path) => {
                let mut file = File::open(path).map_err(io_error("open", path))?;
                hash(&mut file).map_err(io_error("read", path))
            }
            Contents::Link(target) => Ok(link_digest(target)),
        }
    }
}

fn hash(from: &mut dyn Read) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    io::copy(from, &mut hasher)?;
    Ok(Digest(format!("sha256:{:x}", hasher.finalize())))
}

fn link_digest(target: &Path) -> Digest {
    Digest(format!("link:{}", target.display()))
}

/// A root directory.
#[derive(Debug)]
pub struct Files {
    tree: Tree,
}

impl Files {
    /// The files below `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { tree: Tree::new(root) }
    }

    /// Where it is on disk: links on the way are followed, one at the end is not.
    pub fn on_disk(&self, path: &Path) -> Result<PathBuf> {
        let parent = self.tree.on_disk(path.parent().unwrap_or(path))?;
        Ok(path.file_name().map_or(parent.clone(), |name| parent.join(name)))
    }

    /// What is there; `None` if nothing is.
    pub fn digest(&self, path: &Path) -> Result<Option<Digest>> {
        let real = self.on_disk(path)?;
        let kind = match fs::symlink_metadata(&real) {
            Ok(kind) => kind,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(io_error("examine", path)(error)),
        };
        if kind.is_symlink() {
            let target = fs::read_link(&real).map_err(io_error("read the link", path))?;
            return Ok(Some(link_digest(&target)));
        }
        if !kind.is_file() {
            return Err(FileError::InTheWay(path.into()));
        }
        let mut file = File::open(&real).map_err(io_error("open", path))?;
        hash(&mut file).map(Some).map_err(io_error("read", path))
    }

    /// Its text, if it is a file of text and not too large to be shown.
    pub fn text(&self, path: &Path) -> Result<Option<String>> {
        let real = self.on_disk(path)?;
        match fs::metadata(&real) {
            Ok(kind) if kind.is_file() && kind.len() <= TEXT_MAX => {}
            _ => return Ok(None),
        }
        let bytes = fs::read(&real).map_err(io_error("read", path))?;
        Ok(String::from_utf8(bytes).ok())
    }

    /// Whether there is something.
    pub fn exists(&self, path: &Path) -> Result<bool> {
        Ok(self.on_disk(path)?.symlink_metadata().is_ok())
    }

    /// The directories above `path` that are not there, outermost first.
    pub fn missing_directories(&self, path: &Path) -> Result<Vec<PathBuf>> {
        Ok(self.tree.missing_directories(path)?)
    }

    /// Puts it there, with the directories above it.
    pub fn write(&self, path: &Path, contents: &Contents) -> Result<()> {
        let real = self.on_disk(path)?;
        let directory = real.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory).map_err(io_error("make the directory of", path))?;
        let new = directory.join(format!(".darling-builder.{}", std::process::id()));
        let written = match contents {
            Contents::Text(text) => copy(&mut text.as_slice(), &new, 0o644),
            Contents::Program(from) => File::open(from).and_then(|mut from| copy(&mut from, &new, 0o755)),
            Contents::Link(target) => symlink(target, &new),
        };
        let placed =
            written.and_then(|()| fs::rename(&new, &real)).and_then(|()| File::open(directory)?.sync_all());
        if placed.is_err() {
            let _ = fs::remove_file(&new);
        }
        placed.map_err(io_error("write", path))
    }

    /// Removes a file or link. None there is no error.
    pub fn remove(&self, path: &Path) -> Result<()> {
        match fs::remove_file(self.on_disk(path)?) {
            Err(error) if !is_absent(&error) => Err(io_error("remove", path)(error)),
            _ => Ok(()),
        }
    }

    /// Removes a directory if it is empty; whether it is gone.
    pub fn remove_if_empty(&self, path: &Path) -> Result<bool> {
        let real = self.on_disk(path)?;
        Ok(fs::remove_dir(&real).is_ok() || real.symlink_metadata().is_err())
    }

    /// The bytes of a file, `None` if it is not there; for small ones.
    pub fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        Ok(self.tree.read(path)?)
    }
}

fn copy(from: &mut dyn Read, to: &Path, mode: u32) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(from, &mut file)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.flush()?;
    file.sync_all()
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
