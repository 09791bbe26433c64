//! Configuration files below a root directory: read, changed in memory, then written at once.
//!
//! Paths are those that the files will have for Nix: absolute, and looked up below the root, symbolic links included.
//! A file is replaced by a rename, so that nobody ever reads half of it, and keeps its owner and mode. Nothing is written
//! before everything is known to be wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

/// No configuration file is larger; bytes.
const FILE_MAX: u64 = 1 << 20;

/// As many links as Linux follows.
const LINKS_MAX: u32 = 40;

/// Files below a root, and what is to become of them.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    /// New contents; `None` is to be removed.
    files: BTreeMap<PathBuf, Option<Vec<u8>>>,
    /// Directories to be removed if they are empty then.
    unmade: BTreeSet<PathBuf>,
}

/// What becomes of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was not there.
    Made,
    /// It was.
    Changed,
    /// It goes.
    Removed,
}

/// What one file contains, and what it would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// The file.
    pub path: PathBuf,
    /// `None`: it is not there.
    pub before: Option<Vec<u8>>,
    /// `None`: it goes.
    pub after: Option<Vec<u8>>,
}

/// Why files can't be read or written.
#[derive(Debug, Error)]
pub enum TreeError {
    /// The system refused.
    #[error("failed to {what} {path}: {error}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It is no configuration file.
    #[error("failed to read {path}: larger than 1 MiB, or not a file", path = .0.display())]
    Unreadable(PathBuf),
}

type Result<T> = std::result::Result<T, TreeError>;

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> TreeError + 'a {
    move |error| TreeError::Io { what, path: path.into(), error }
}

impl Tree {
    /// The files below `root`; nothing is changed yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root, files: BTreeMap::new(), unmade: BTreeSet::new() }
    }

    /// Where `path` is for this process, symbolic links followed.
    pub fn on_disk(&self, path: &Path) -> Result<PathBuf> {
        Ok(self.real(&self.resolve(path)?))
    }

    fn real(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Where `path` leads when every symbolic link on the way is followed below the root. What does not exist leads to
    /// itself.
    pub fn resolve(&self, path: &Path) -> Result<PathBuf> {
        let mut ahead: Vec<OsString> = names(path);
        let mut reached = PathBuf::from("/");
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == ".." {
                reached.pop();
                continue;
            }
            let next = reached.join(&name);
            let target = match fs::read_link(self.real(&next)) {
                Ok(target) => target,
                // Not a link, or nothing at all.
                Err(_) => {
                    reached = next;
                    continue;
                }
            };
            links += 1;
            if links > LINKS_MAX {
                return Err(io_error("follow", path)(io::ErrorKind::InvalidInput.into()));
            }
            if target.is_absolute() {
                reached = "/".into();
            }
            ahead.extend(names(&target));
        }
        Ok(reached)
    }

    /// What the file will contain, if it will be there.
    pub fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        match self.files.get(&self.resolve(path)?) {
            Some(staged) => Ok(staged.clone()),
            None => self.read_disk(path),
        }
    }

    fn read_disk(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let real = self.real(&self.resolve(path)?);
        let file = match File::open(&real) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(io_error("open", path)(error)),
        };
        let metadata = file.metadata().map_err(io_error("read", path))?;
        if !metadata.is_file() || metadata.len() > FILE_MAX {
            return Err(TreeError::Unreadable(path.into()));
        }
        let mut bytes = Vec::new();
        file.take(FILE_MAX).read_to_end(&mut bytes).map_err(io_error("read", path))?;
        Ok(Some(bytes))
    }

    /// Whether something will be there.
    pub fn exists(&self, path: &Path) -> Result<bool> {
        let resolved = self.resolve(path)?;
        Ok(match self.files.get(&resolved) {
            Some(staged) => staged.is_some(),
            None => !self.unmade.contains(&resolved) && self.real(&resolved).exists(),
        })
    }

    /// Names in a directory that is on disk, sorted; none if it is not there.
    pub fn list(&self, directory: &Path) -> Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(self.real(&self.resolve(directory)?)) {
            Ok(entries) => entries,
            Err(_) => return Ok(Vec::new()),
        };
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(directory.join(entry.map_err(io_error("list", directory))?.file_name()));
        }
        paths.sort();
        Ok(paths)
    }

    /// The directories above `path` that will not be there, outermost first.
    pub fn missing_directories(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let mut missing = Vec::new();
        for directory in path.ancestors().skip(1) {
            if self.exists(directory)? {
                break;
            }
            missing.insert(0, directory.to_owned());
        }
        Ok(missing)
    }

    /// The file is to contain this; `None` removes it.
    pub fn set(&mut self, path: &Path, contents: Option<Vec<u8>>) -> Result<()> {
        let resolved = self.resolve(path)?;
        self.files.insert(resolved, contents);
        Ok(())
    }

    /// The directory is to go, if nothing else is in it then.
    pub fn unmake_directory(&mut self, path: PathBuf) {
        self.unmade.insert(path);
    }

    /// What is different from what is on disk.
    pub fn changes(&self) -> Result<Vec<(PathBuf, Change)>> {
        let change = |preview: Preview| {
            let change = match (preview.before, preview.after) {
                (None, _) => Change::Made,
                (_, None) => Change::Removed,
                (Some(_), Some(_)) => Change::Changed,
            };
            (preview.path, change)
        };
        Ok(self.previews()?.into_iter().map(change).collect())
    }

    /// The same, with contents.
    pub fn previews(&self) -> Result<Vec<Preview>> {
        let mut previews = Vec::new();
        for (path, after) in &self.files {
            let before = self.read_disk(path)?;
            if before != *after {
                previews.push(Preview { path: path.clone(), before, after: after.clone() });
            }
        }
        Ok(previews)
    }

    /// Writes the changes: first `first`, which others are to include; removals last. Returns what has been done.
    pub fn commit(self, first: &str) -> Result<Vec<(PathBuf, Change)>> {
        let mut changes = self.changes()?;
        changes.sort_by_key(|(path, change)| {
            (*change == Change::Removed, path.file_name().is_none_or(|name| name != first))
        });
        for (path, _) in &changes {
            match self.files.get(path).and_then(Option::as_deref) {
                Some(contents) => self.write(path, contents)?,
                None => fs::remove_file(self.real(path)).map_err(io_error("remove", path))?,
            }
        }
        for directory in self.unmade.iter().rev() {
            // Not when there is something in it, ours or not.
            let _ = fs::remove_dir(self.real(directory));
        }
        Ok(changes)
    }

    fn write(&self, path: &Path, contents: &[u8]) -> Result<()> {
        let real = self.real(path);
        let directory = real.parent().unwrap_or(&self.root);
        fs::create_dir_all(directory).map_err(io_error("make the directory of", path))?;
        let old = fs::metadata(&real).ok();
        let new = directory.join(format!(".darling-builder.{}", std::process::id()));
        let result = (|| {
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
            if let Some(old) = &old {
                fchown(&file, Some(old.uid()), Some(old.gid()))?;
            }
            let mode = old.as_ref().map_or(0o644, |old| old.mode() & 0o7777);
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.write_all(contents)?;
            file.sync_all()?;
            fs::rename(&new, &real)?;
            File::open(directory)?.sync_all()
        })();
        if result.is_err() {
            let _ = fs::remove_file(&new);
        }
        result.map_err(io_error("write", path))
    }
}

/// The components of a path, last first.
fn names(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    let mut names: Vec<_> = names.collect();
    names.reverse();
    names
}
