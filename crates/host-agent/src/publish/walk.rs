//! Going through a tree by descriptors.
//!
//! Invariants: a symlink is never followed, a mount point never crossed. Neither the depth of a tree nor the length
//! of its paths has a limit: the trail of directories lives on the heap, and only the deepest [`KEEP_OPEN`] of
//! them hold a descriptor. One that was closed is found again through `..` and must then have the device and inode
//! that it had before (the way of the BSDs' `fts`).

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use thiserror::Error;

use super::PublishError;
use super::interrupt::{Interrupt, Interrupted};

/// How many directories of a trail are open at most.
const KEEP_OPEN: usize = 32;

/// After how many names of a directory it is asked whether to go on.
const CHECK_EVERY: usize = 4096;

/// What error messages show of a path at most, bytes.
const SHOWN_PATH: usize = 1024;

/// A system call on an entry of a tree failed.
#[derive(Debug, Error)]
#[error("can't {action} '{path}': {source}")]
pub struct TreeError {
    /// What was tried, e.g. `open`.
    pub action: &'static str,
    /// The entry, from the top of the tree, escaped, shortened if it is very long.
    pub path: String,
    /// The operating system's answer.
    pub source: io::Error,
}

impl TreeError {
    pub(super) fn new(action: &'static str, path: String, source: impl Into<io::Error>) -> Self {
        Self { action, path, source: source.into() }
    }
}

/// Device and inode: what an entry is, whatever it is called.
pub(super) type Identity = (u64, u64);

pub(super) fn identity(stat: &FileStat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

/// `lstat`, relative to a directory.
pub(super) fn stat_entry(parent: BorrowedFd<'_>, name: &[u8]) -> nix::Result<FileStat> {
    fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// Opens a directory to list it. Symlinks fail with `ENOTDIR`, mount points (bind mounts as well) with `EXDEV`.
/// Linux 5.6 or later.
pub(super) fn open_directory(parent: BorrowedFd<'_>, name: &[u8]) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_XDEV);
    openat2(parent, name, how)
}

/// Opens what [`stat_entry`] said is a regular file. Never blocks and has no side effects if it is something else by
/// now.
pub(super) fn open_regular(parent: BorrowedFd<'_>, name: &[u8]) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// A handle to the entry itself, be it a symlink or a fifo, that allows neither reading nor writing.
pub(super) fn open_handle(parent: BorrowedFd<'_>, name: &[u8]) -> nix::Result<OwnedFd> {
    openat(parent, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

/// The names in a directory, sorted by their bytes, and how far one has got with them.
#[derive(Default)]
pub(super) struct Entries {
    names: Vec<u8>,
    /// Start and end of each name.
    spans: Vec<(usize, usize)>,
    next: usize,
}

/// Why a directory was not listed.
#[derive(Debug, Error)]
pub(super) enum ListError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl From<Errno> for ListError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl From<ListError> for io::Error {
    fn from(error: ListError) -> Self {
        match error {
            ListError::Io(error) => error,
            ListError::Interrupted(interrupted) => Self::other(interrupted),
        }
    }
}

impl Entries {
    /// Reads a directory that was not read before. `None` if it has more than `limit` entries.
    pub fn list(directory: &OwnedFd, limit: usize, interrupt: &Interrupt) -> Result<Option<Self>, ListError> {
        let mut entries = Self::default();
        let mut stream = Dir::from_fd(directory.try_clone()?)?;
        for entry in stream.iter() {
            let entry = entry?;
            if entries.spans.len().is_multiple_of(CHECK_EVERY) {
                interrupt.check()?;
            }
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if entries.spans.len() == limit {
                return Ok(None);
            }
            let start = entries.names.len();
            entries.names.extend_from_slice(name);
            entries.spans.push((start, entries.names.len()));
        }
        let Self { names, spans, .. } = &mut entries;
        spans.sort_unstable_by(|left, right| names[left.0..left.1].cmp(&names[right.0..right.1]));
        Ok(Some(entries))
    }
}

/// A directory on the way down.
struct Passed {
    name: Box<[u8]>,
    identity: Identity,
    entries: Entries,
}

/// Where one is in a tree, and the way back up.
pub(super) struct Trail<'a> {
    /// Holds the top of the tree.
    parent: BorrowedFd<'a>,
    /// From the top downwards, those without a descriptor.
    closed: Vec<Passed>,
    /// Further down, those with one. Empty only if `closed` is.
    open: VecDeque<(OwnedFd, Passed)>,
}

/// A directory that one has come up from.
pub(super) struct Left {
    pub name: Box<[u8]>,
    pub directory: OwnedFd,
}

impl<'a> Trail<'a> {
    /// Starts in the directory that holds the top of the tree.
    pub fn new(parent: BorrowedFd<'a>) -> Self {
        Self { parent, closed: Vec::new(), open: VecDeque::new() }
    }

    /// The directory one is in.
    pub fn here(&self) -> BorrowedFd<'_> {
        self.open.back().map_or(self.parent, |(directory, _)| directory.as_fd())
    }

    /// How many directories of the tree one is in; 0 is above the top.
    pub fn depth(&self) -> usize {
        self.closed.len() + self.open.len()
    }

    /// Puts the name of the next entry here into `name`. `false`: there is none.
    pub fn next_entry(&mut self, name: &mut Vec<u8>) -> bool {
        let Some((_, Passed { entries, .. })) = self.open.back_mut() else { return false };
        let Some(&(start, end)) = entries.spans.get(entries.next) else { return false };
        entries.next += 1;
        name.clear();
        name.extend_from_slice(&entries.names[start..end]);
        true
    }

    /// Lists a directory that was opened as `name` of [`here`](Self::here). `None` if it has more than `limit` entries.
    pub fn list(
        &self,
        name: &[u8],
        directory: &OwnedFd,
        limit: usize,
        interrupt: &Interrupt,
    ) -> Result<Option<Entries>, PublishError> {
        Entries::list(directory, limit, interrupt).map_err(|error| match error {
            ListError::Io(error) => TreeError::new("list", self.path(Some(name)), error).into(),
            ListError::Interrupted(interrupted) => interrupted.into(),
        })
    }

    /// Goes into a directory that was opened as `name` of [`here`](Self::here).
    pub fn descend(&mut self, name: &[u8], directory: OwnedFd, identity: Identity, entries: Entries) {
        if self.open.len() == KEEP_OPEN
            && let Some((_, passed)) = self.open.pop_front()
        {
            self.closed.push(passed);
        }
        self.open.push_back((directory, Passed { name: name.into(), identity, entries }));
    }

    /// Goes up again. `None` above the top.
    pub fn ascend(&mut self) -> Result<Option<Left>, TreeError> {
        if self.open.len() == 1 && !self.closed.is_empty() {
            self.reopen()?;
        }
        Ok(self.open.pop_back().map(|(directory, passed)| Left { name: passed.name, directory }))
    }

    /// Opens the directory above the only one that is open.
    fn reopen(&mut self) -> Result<(), TreeError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let above = openat(self.here(), c"..", flags, Mode::empty())
            .map_err(|errno| TreeError::new("return from", self.path(None), errno))?;
        let found = fstat(&above).map_err(|errno| TreeError::new("return from", self.path(None), errno))?;
        if let Some(passed) = self.closed.pop_if(|passed| passed.identity == identity(&found)) {
            self.open.push_front((above, passed));
            Ok(())
        } else {
            let moved = io::Error::other("it was moved meanwhile");
            Err(TreeError::new("return from", self.path(None), moved))
        }
    }

    /// The path of an entry here, or of the directory itself, for messages: from the top of the tree, escaped, the
    /// middle left out if it is very long.
    pub fn path(&self, last: Option<&[u8]>) -> String {
        let passed = self.closed.iter().chain(self.open.iter().map(|(_, passed)| passed));
        let names: Vec<&[u8]> = passed.map(|passed| &*passed.name).chain(last).collect();
        shown(&names)
    }
}

fn shown(names: &[&[u8]]) -> String {
    let half = SHOWN_PATH / 2;
    let within = |names: &mut dyn Iterator<Item = &&[u8]>| {
        let mut length = 0;
        names
            .take_while(|name| {
                length += name.len() + 1;
                length <= half.max(name.len() + 1)
            })
            .count()
    };
    let join = |names: &[&[u8]]| names.join(&b'/').escape_ascii().to_string();
    let head = within(&mut names.iter());
    if head == names.len() {
        return join(names);
    }
    let tail = within(&mut names[head..].iter().rev());
    if head + tail == names.len() {
        return join(names);
    }
    format!("{}/[…]/{}", join(&names[..head]), join(&names[names.len() - tail..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortens_long_paths_in_messages_in_the_middle() {
        let long = [b'x'; 255];
        let names: Vec<&[u8]> =
            std::iter::once(&b"top"[..]).chain([&long[..]; 500]).chain([&b"end"[..]]).collect();
        let text = shown(&names);
        assert!(text.len() < 2 * SHOWN_PATH);
        assert!(text.starts_with("top/xxx") && text.contains("/[…]/x") && text.ends_with("x/end"), "{text}");
        assert_eq!(shown(&[b"a", b"\xff"]), "a/\\xff");
    }

    #[test]
    fn shows_a_path_of_moderate_length_whole() {
        let names: Vec<&[u8]> = vec![&[b'y'; 200]; 4];
        assert!(!shown(&names).contains('…'));
    }

    #[test]
    fn keeps_few_directories_open_and_finds_the_others_again() {
        let top = tempfile::tempdir().unwrap();
        let depth = 3 * KEEP_OPEN;
        std::fs::create_dir_all(top.path().join(vec!["d"; depth].join("/"))).unwrap();
        let parent = std::fs::File::open(top.path()).unwrap();
        let mut trail = Trail::new(parent.as_fd());
        for _ in 0..depth {
            let directory = open_directory(trail.here(), b"d").unwrap();
            let identity = identity(&fstat(&directory).unwrap());
            trail.descend(b"d", directory, identity, Entries::default());
            assert!(trail.open.len() <= KEEP_OPEN);
        }
        for left in (0..depth).rev() {
            assert_eq!(&*trail.ascend().unwrap().unwrap().name, b"d");
            assert_eq!(trail.depth(), left);
        }
        assert_eq!(identity(&fstat(trail.here()).unwrap()), identity(&fstat(&parent).unwrap()));
        assert!(trail.ascend().unwrap().is_none());
    }

    #[test]
    fn does_not_go_up_into_another_directory_than_it_came_from() {
        let top = tempfile::tempdir().unwrap();
        let depth = KEEP_OPEN + 1;
        let inner = vec!["d"; depth].join("/");
        std::fs::create_dir_all(top.path().join(&inner)).unwrap();
        let parent = std::fs::File::open(top.path()).unwrap();
        let mut trail = Trail::new(parent.as_fd());
        for _ in 0..depth {
            let directory = open_directory(trail.here(), b"d").unwrap();
            let identity = identity(&fstat(&directory).unwrap());
            trail.descend(b"d", directory, identity, Entries::default());
        }
        // The second directory from the top is the shallowest that is still open.
        std::fs::rename(top.path().join("d/d"), top.path().join("moved")).unwrap();
        for _ in 0..KEEP_OPEN - 1 {
            trail.ascend().unwrap();
        }
        let Err(error) = trail.ascend() else { panic!("went up into another directory") };
        assert_eq!(error.to_string(), "can't return from 'd/d': it was moved meanwhile");
    }

    #[test]
    fn lists_no_more_than_asked_for() {
        let top = tempfile::tempdir().unwrap();
        (0..3).for_each(|n| std::fs::write(top.path().join(n.to_string()), "").unwrap());
        let list = |limit| {
            let directory = std::fs::File::open(top.path()).unwrap().into();
            Entries::list(&directory, limit, &Interrupt::default()).unwrap()
        };
        assert!(list(2).is_none());
        assert!(list(3).is_some_and(|entries| entries.spans.len() == 3));
    }
}
