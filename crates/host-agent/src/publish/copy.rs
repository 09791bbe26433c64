//! Copying a tree: for outputs that someone outside may still be able to write to, and for stores on another file
//! system.
//!
//! The copy has canonical modes and times, no extended attributes, and belongs to whoever makes it. Hard links become
//! separate files. Data is shared where the file system can do that (reflink), holes stay holes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, copy_file_range, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, mkdirat};
use nix::unistd::{Whence, lseek, symlinkat};

use super::entry_checks::{ENTRY_NAR_MIN, EntryRules, Kind};
use super::walk::{self, Entries, Trail, identity};
use super::{PublishError, TreeError, canonical, reflink, remove_tree};

/// Bytes at a time where data has to pass through this process.
const PIECE: usize = 256 * 1024;

/// What a tree must be like to be copied.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopyRules {
    /// The uid that must own every entry; `None`: any.
    pub owned_by: Option<u32>,
    /// How much is copied at most: bytes of contents, and some for each entry, never more than its NAR would have.
    pub max_bytes: Option<u64>,
}

/// Copies what is called `name` in `from` to `new_name` in `to`, where nothing of that name may exist yet. A failure
/// removes what was copied. Neither name may contain a `/`.
pub fn copy_tree(
    from: BorrowedFd<'_>,
    name: &[u8],
    to: BorrowedFd<'_>,
    new_name: &[u8],
    rules: &CopyRules,
) -> Result<(), PublishError> {
    let stat = walk::stat_entry(from, name).map_err(|errno| match errno {
        Errno::ENOENT => PublishError::Missing(name.escape_ascii().to_string()),
        errno => TreeError::new("examine", name.escape_ascii().to_string(), errno).into(),
    })?;
    let device = fstat(from)
        .map_err(|errno| TreeError::new("examine", name.escape_ascii().to_string(), errno))?
        .st_dev;
    if walk::stat_entry(to, new_name) != Err(Errno::ENOENT) {
        // Before anything is made, for what is made is removed on failure.
        let exists = TreeError::new("create", new_name.escape_ascii().to_string(), Errno::EEXIST);
        return Err(exists.into());
    }
    let mut copier = Copier {
        source: Trail::new(from),
        target: Trail::new(to),
        rules: EntryRules { device, owned_by: rules.owned_by },
        limit: rules.max_bytes,
        copied: 0,
        buffer: Vec::new(),
    };
    let copied = copier.run(name, &stat, new_name);
    if copied.is_err() {
        // The first error is the one to tell.
        let _ = remove_tree(to, new_name);
    }
    copied
}

struct Copier<'a> {
    source: Trail<'a>,
    target: Trail<'a>,
    rules: EntryRules,
    limit: Option<u64>,
    copied: u64,
    /// For [`copy_through`](Self::copy_through), made when first needed.
    buffer: Vec<u8>,
}

impl Copier<'_> {
    fn run(&mut self, top: &[u8], stat: &FileStat, new_name: &[u8]) -> Result<(), PublishError> {
        let path = || top.escape_ascii().to_string();
        let (kind, _) = self.rules.check(stat, None, path)?;
        if self.rules.owned_by.is_some() {
            EntryRules::check_top(stat, kind, path)?;
        }
        self.entry(top, new_name, stat, kind)?;
        let mut name = Vec::new();
        while self.source.depth() > 0 {
            if self.source.next_entry(&mut name) {
                let stat = walk::stat_entry(self.source.here(), &name)
                    .map_err(|errno| self.failed("examine", &name, errno))?;
                let (kind, _) = self.rules.check(&stat, None, || self.source.path(Some(&name)))?;
                self.entry(&name, &name, &stat, kind)?;
            } else {
                self.source.ascend()?;
                if let Some(left) = self.target.ascend()? {
                    finish(&left.directory, Mode::from_bits_truncate(0o555))
                        .map_err(|errno| self.failed("finish", &left.name, errno))?;
                }
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        name: &[u8],
        new_name: &[u8],
        stat: &FileStat,
        kind: Kind,
    ) -> Result<(), PublishError> {
        self.count(ENTRY_NAR_MIN)?;
        match kind {
            Kind::Regular => self.regular(name, new_name, stat),
            Kind::Symlink => self.symlink(name, new_name, stat),
            Kind::Directory => self.directory(name, new_name, stat),
        }
    }

    fn regular(&mut self, name: &[u8], new_name: &[u8], stat: &FileStat) -> Result<(), PublishError> {
        let source =
            walk::open_regular(self.source.here(), name).map_err(|errno| self.failed("open", name, errno))?;
        let now = self.same(name, &source, stat)?;
        let size = u64::try_from(now.st_size).unwrap_or(0);
        self.count(size)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let target = openat(self.target.here(), new_name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|errno| self.failed("create the copy of", name, errno))?;
        let (source, target) = (File::from(source), File::from(target));
        let copied = match reflink::share_data(source.as_fd(), target.as_fd()) {
            // What is shared may have grown since it was counted; it is counted again when it is hashed.
            Ok(()) => Ok(()),
            Err(_) => self.copy_data(&source, &target, size),
        };
        copied.map_err(|error| self.failed("copy", name, error))?;
        finish(&target, canonical::mode_for(&now, Kind::Regular))
            .map_err(|errno| self.failed("finish the copy of", name, errno))?;
        Ok(())
    }

    /// Copies the parts of a file that are not holes.
    fn copy_data(&mut self, source: &File, target: &File, size: u64) -> io::Result<()> {
        target.set_len(size)?;
        let mut at = 0;
        while at < size {
            let (data, hole) = match lseek(source, offset(at)?, Whence::SeekData) {
                // Nothing but a hole up to the end.
                Err(Errno::ENXIO) => return Ok(()),
                // The file system does not tell.
                Err(Errno::EINVAL) => (at, size),
                Err(errno) => return Err(errno.into()),
                Ok(data) => (u64::try_from(data).unwrap_or(0), {
                    u64::try_from(lseek(source, data, Whence::SeekHole)?).unwrap_or(0)
                }),
            };
            let end = hole.min(size);
            if data >= end {
                return Ok(());
            }
            self.copy_range(source, target, data, end)?;
            at = end;
        }
        Ok(())
    }

    fn copy_range(&mut self, source: &File, target: &File, mut at: u64, end: u64) -> io::Result<()> {
        while at < end {
            let (mut from, mut to) = (offset(at)?, offset(at)?);
            let wanted = usize::try_from((end - at).min(1 << 30)).unwrap_or(PIECE);
            match copy_file_range(source, Some(&mut from), target, Some(&mut to), wanted) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => at += length as u64,
                Err(Errno::EINTR) => {}
                Err(Errno::EXDEV | Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EPERM) => {
                    return self.copy_through(source, target, at, end);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn copy_through(&mut self, source: &File, target: &File, mut at: u64, end: u64) -> io::Result<()> {
        self.buffer.resize(PIECE, 0);
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
            match source.read_at(&mut self.buffer[..wanted], at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    target.write_all_at(&self.buffer[..length], at)?;
                    at += length as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn symlink(&mut self, name: &[u8], new_name: &[u8], stat: &FileStat) -> Result<(), PublishError> {
        let link =
            walk::open_handle(self.source.here(), name).map_err(|errno| self.failed("open", name, errno))?;
        self.same(name, &link, stat)?;
        let target = readlinkat(&link, c"").map_err(|errno| self.failed("read", name, errno))?;
        symlinkat(target.as_os_str(), self.target.here(), new_name)
            .and_then(|()| canonical::set_mtime_of_symlink(self.target.here(), new_name))
            .map_err(|errno| self.failed("create the copy of", name, errno))?;
        Ok(())
    }

    fn directory(&mut self, name: &[u8], new_name: &[u8], stat: &FileStat) -> Result<(), PublishError> {
        let source = walk::open_directory(self.source.here(), name).map_err(|errno| match errno {
            Errno::EXDEV => PublishError::OtherFileSystem { path: self.source.path(Some(name)) },
            errno => self.failed("open", name, errno).into(),
        })?;
        let now = self.same(name, &source, stat)?;
        let left = self.limit.map(|limit| limit.saturating_sub(self.copied) / ENTRY_NAR_MIN);
        let most = left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let entries = Entries::list(&source, most).map_err(|error| self.failed("list", name, error))?;
        let entries = entries.ok_or_else(|| self.too_large())?;
        let (target, made) = mkdirat(self.target.here(), new_name, Mode::S_IRWXU)
            .and_then(|()| walk::open_directory(self.target.here(), new_name))
            .and_then(|target| fstat(&target).map(|made| (target, made)))
            .map_err(|errno| self.failed("create the copy of", name, errno))?;
        self.source.descend(name, source, identity(&now), entries);
        self.target.descend(new_name, target, identity(&made), Entries::default());
        Ok(())
    }

    /// Makes sure that what was opened is what was checked; returns what is true of it now.
    fn same(&self, name: &[u8], opened: &OwnedFd, checked: &FileStat) -> Result<FileStat, PublishError> {
        let now = fstat(opened).map_err(|errno| self.failed("examine", name, errno))?;
        let unchanged = identity(&now) == identity(checked) && now.st_uid == checked.st_uid;
        if unchanged { Ok(now) } else { Err(PublishError::Changed { path: self.source.path(Some(name)) }) }
    }

    fn count(&mut self, bytes: u64) -> Result<(), PublishError> {
        self.copied = self.copied.saturating_add(bytes);
        if self.limit.is_some_and(|limit| self.copied > limit) { Err(self.too_large()) } else { Ok(()) }
    }

    fn too_large(&self) -> PublishError {
        PublishError::TooLarge { path: self.source.path(None), limit: self.limit.unwrap_or(u64::MAX) }
    }

    fn failed(&self, action: &'static str, name: &[u8], source: impl Into<io::Error>) -> TreeError {
        TreeError::new(action, self.source.path(Some(name)), source)
    }
}

/// Gives a copied file or directory, complete by now, its mode and time.
fn finish(entry: impl AsFd, mode: Mode) -> nix::Result<()> {
    fchmod(entry.as_fd(), mode)?;
    canonical::set_mtime(entry)
}

fn offset(position: u64) -> io::Result<i64> {
    i64::try_from(position).map_err(|_| io::ErrorKind::FileTooLarge.into())
}
