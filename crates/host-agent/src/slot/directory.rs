//! The daemon's directory on the host, and what each slot has in it.
//!
//! ```text
//! <state>/            0711        lock          held while a daemon runs
//!   mountpoint/       0700        where each slot mounts its root, in its own mount namespace
//!   slots/<id>/       0700        store/ the view · build/ the build directory · log what the guest printed
//!   results/<id>/     0700        outputs ready to be taken, owned by whoever asked
//!   kept/<uid>/       0700        build directories of failed builds that were to be kept ([`super::kept`])
//!   ssh/              0755        keys, if one can log in (`crate::ssh::keys`)
//! ```
//!
//! Nothing but `kept` and `ssh` outlives a daemon: whatever is found at start is of a daemon that crashed.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;

use super::kept;
use super::root::set_mode;
use crate::publish::{PublishError, Transfer, TreeError, hand_over, remove_tree};

/// Most bytes of a guest's own output that an error message quotes.
const LOG_TAIL: u64 = 2048;

/// Held while a daemon runs.
const LOCK: &str = "lock";

/// What is in a daemon's directory, with modes.
const DIRECTORIES: [(&str, u32); 4] =
    [("mountpoint", 0o700), ("slots", 0o700), ("results", 0o711), (KEPT, 0o711)];

/// Build directories that are kept.
pub const KEPT: &str = "kept";

/// A slot's build directory, in the slot's own.
const BUILD: &str = "build";

/// Keys, if somebody may log in.
const SSH: &str = "ssh";

/// A directory could not be made.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// A file system operation failed.
    #[error("failed to {step} {path}: {error}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Something in it could not be removed.
    #[error("failed to clean up: {0}")]
    Tree(Box<TreeError>),
    /// A build directory could not be given to whoever asked.
    #[error("failed to hand the build directory over: {0}")]
    HandOver(Box<PublishError>),
    /// Another daemon has it.
    #[error(
        "failed to lock {0}: another darling-builder daemon runs; stop it first (`systemctl stop darling-builder`)"
    )]
    Locked(PathBuf),
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirectoryError {
    let path = path.to_owned();
    move |error| DirectoryError::Io { step, path, error }
}

/// The daemon's directory, locked.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    _lock: Flock<File>,
}

impl StateDirectory {
    /// Makes what is missing and takes the lock.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        fs::create_dir_all(path).map_err(failed("make", path))?;
        set_mode(path, 0o711).map_err(failed("set the mode of", path))?;
        let lock = lock(path)?;
        for (name, mode) in DIRECTORIES {
            let path = path.join(name);
            match DirBuilder::new().mode(mode).create(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed("make", &path)(error));
                }
                _ => set_mode(&path, mode).map_err(failed("set the mode of", &path))?,
            }
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// What an earlier daemon left: directories of its slots and of results that nobody took.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        ["slots", "results"]
            .iter()
            .filter_map(|name| fs::read_dir(self.path.join(name)).ok())
            .flatten()
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .collect()
    }

    /// Where slots mount their roots.
    pub fn mountpoint(&self) -> PathBuf {
        self.path.join("mountpoint")
    }

    /// Whether outputs can leave for `store` by a rename: both are on one file system.
    pub fn shares_file_system_with(&self, store: &Path) -> bool {
        match (fs::metadata(&self.path), fs::metadata(store)) {
            (Ok(ours), Ok(theirs)) => ours.dev() == theirs.dev(),
            _ => false,
        }
    }

    /// The directories of a new slot.
    pub fn new_slot(&self, id: u32, uid: u32) -> Result<SlotDirectory, DirectoryError> {
        let path = self.path.join("slots").join(id.to_string());
        DirBuilder::new().mode(0o700).create(&path).map_err(failed("make", &path))?;
        let slot = SlotDirectory { path };
        // Sticky: the builder makes its outputs here and can't remove the mount points of its inputs.
        for (path, owner, mode) in [(slot.view(), 0, 0o1775), (slot.build(), uid, 0o700)] {
            fs::create_dir(&path).map_err(failed("make", &path))?;
            chown(&path, Some(owner), Some(uid)).map_err(failed("change the owner of", &path))?;
            set_mode(&path, mode).map_err(failed("set the mode of", &path))?;
        }
        Ok(slot)
    }

    /// A directory for the results of slot `id`, owned by whoever will take them.
    pub fn results(&self, id: u32, uid: u32, gid: u32) -> Result<PathBuf, DirectoryError> {
        let path = self.path.join("results").join(id.to_string());
        DirBuilder::new().mode(0o700).create(&path).map_err(failed("make", &path))?;
        chown(&path, Some(uid), Some(gid)).map_err(failed("change the owner of", &path))?;
        Ok(path)
    }

    /// Hands a slot's build directory over, and moves it to a place of its own below `kept/<uid>`: everything in the slot
    /// must be dead. Returns where it is.
    pub fn keep(
        &self,
        slot: &SlotDirectory,
        name: &str,
        transfer: Transfer<'_>,
    ) -> Result<PathBuf, DirectoryError> {
        let from = slot.hand_build_over(transfer)?;
        let kept = self.path.join(KEPT);
        kept::keep(&kept, from.as_fd(), BUILD, name, transfer.owner)
            .map_err(failed("keep a directory in", &kept))
    }
}

/// Keeps other daemons out.
fn lock(state: &Path) -> Result<Flock<File>, DirectoryError> {
    let path = state.join(LOCK);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed("open", &path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| DirectoryError::Locked(path))
}

/// Removes a daemon's directory that no daemon uses: all that [`StateDirectory::open`] makes, kept build directories and the
/// keys for ssh as well, and the directory itself if nothing else is in it; whether it is gone.
pub fn remove_state(path: &Path) -> Result<bool, DirectoryError> {
    let _lock = lock(path)?;
    for name in DIRECTORIES.map(|(name, _)| name).into_iter().chain([SSH]) {
        let directory = path.join(name);
        if directory.symlink_metadata().is_ok() {
            remove(&directory)?;
        }
    }
    fs::remove_file(path.join(LOCK)).map_err(failed("remove", path))?;
    Ok(fs::remove_dir(path).is_ok())
}

/// Removes a directory of the daemon's with all that a builder may have left in it.
pub fn remove(path: &Path) -> Result<(), DirectoryError> {
    let (parent, name) = parent_and_name(path)?;
    remove_tree(parent.as_fd(), &name).map_err(|error| DirectoryError::Tree(Box::new(error)))
}

fn parent_and_name(path: &Path) -> Result<(File, Vec<u8>), DirectoryError> {
    let parent = path.parent().unwrap_or(path);
    let name = path.file_name().unwrap_or_default().as_bytes().to_vec();
    Ok((File::open(parent).map_err(failed("open", parent))?, name))
}

/// What one slot has on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotDirectory {
    path: PathBuf,
}

impl SlotDirectory {
    /// All of it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The store view; once the slot is dead, mount points and outputs.
    pub fn view(&self) -> PathBuf {
        self.path.join("store")
    }

    /// The build directory.
    pub fn build(&self) -> PathBuf {
        self.path.join(BUILD)
    }

    /// Hands the build directory over where it is, where nobody but root can look: everything in the slot must be dead.
    /// Returns the directory that it is in.
    pub fn hand_build_over(&self, transfer: Transfer<'_>) -> Result<File, DirectoryError> {
        let directory = File::open(&self.path).map_err(failed("open", &self.path))?;
        hand_over(directory.as_fd(), BUILD.as_bytes(), transfer)
            .map_err(|error| DirectoryError::HandOver(Box::new(error)))?;
        Ok(directory)
    }

    /// What the guest's own programs printed.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The end of that, for an error message.
    pub fn log_tail(&self) -> String {
        let mut tail = Vec::new();
        let read = File::open(self.log()).and_then(|mut file| {
            let len = file.metadata()?.len();
            file.seek(SeekFrom::Start(len.saturating_sub(LOG_TAIL)))?;
            file.take(LOG_TAIL).read_to_end(&mut tail)
        });
        match read {
            Ok(0) | Err(_) => "its log, which is empty".into(),
            Ok(_) => format!("its log: {}", String::from_utf8_lossy(&tail).trim_end()),
        }
    }
}
