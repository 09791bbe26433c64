//! Copying a tree: for outputs that someone outside may still be able to write to, for stores on another file system, and
//! for build directories that are lent.
//!
//! The copy has no extended attributes and no set-id bits, and what else it has is said by its [`Form`]. Data is shared
//! where the file system can do that (reflink), holes stay holes.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, copy_file_range, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, UtimensatFlags, fchmod, fstat, futimens, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, symlinkat};

use super::entry_checks::{ENTRY_NAR_MIN, EntryRules, Kind, kind_of};
use super::holes::{Part, offset, part_at};
use super::interrupt::Interrupt;
use super::walk::{self, Entries, Identity, Trail, identity};
use super::{PublishError, TreeError, canonical, reflink, remove_tree};

/// Bytes at a time where data has to pass through this process.
const PIECE: usize = 256 * 1024;

/// Bytes at a time where the kernel copies them: it can't be interrupted meanwhile.
const KERNEL_PIECE: u64 = 4 * 1024 * 1024;

/// What a tree must be like to be copied, and what its copy is like.
#[derive(Debug, Clone, Default)]
pub struct CopyRules {
    /// The uid that must own every entry; `None`: any.
    pub owned_by: Option<u32>,
    /// How much is copied at most: bytes of contents, and some for each entry, never more than its NAR would have.
    pub max_bytes: Option<u64>,
    /// What the copy is like.
    pub form: Form,
    /// When to end early.
    pub interrupt: Interrupt,
}

/// What a copy is like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// Canonical modes and times; it belongs to whoever makes it. Files with several names become separate ones.
    #[default]
    Canonical,
    /// Modes and times are those of the source.
    AsItIs {
        /// Uid and gid of everything in the copy.
        owner: (u32, u32),
        /// What becomes of special files, and of files with several names. Those can't become separate files: a thousand
        /// names of a large file take no space, a thousand copies do.
        odd: Odd,
    },
}

/// What becomes of entries that can't be copied as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Odd {
    /// They are an error.
    Refused,
    /// The first name of a file is copied; its other names, and special files, are not.
    LeftOut,
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
        form: rules.form,
        limit: rules.max_bytes,
        interrupt: &rules.interrupt,
        copied: 0,
        seen: HashSet::new(),
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
    form: Form,
    limit: Option<u64>,
    interrupt: &'a Interrupt,
    copied: u64,
    /// Files with several names of which one was copied, if the others are left out.
    seen: HashSet<Identity>,
    /// For [`copy_through`](Self::copy_through), made when first needed.
    buffer: Vec<u8>,
}

impl Copier<'_> {
    fn run(&mut self, top: &[u8], stat: &FileStat, new_name: &[u8]) -> Result<(), PublishError> {
        self.entry(top, new_name, stat)?;
        let mut name = Vec::new();
        while self.source.depth() > 0 {
            if self.source.next_entry(&mut name) {
                let stat = walk::stat_entry(self.source.here(), &name)
                    .map_err(|errno| self.failed("examine", &name, errno))?;
                self.entry(&name, &name, &stat)?;
            } else if let (Some(from), Some(to)) = (self.source.ascend()?, self.target.ascend()?) {
                fstat(&from.directory)
                    .and_then(|stat| self.finish(&to.directory, &stat, Kind::Directory))
                    .map_err(|errno| self.failed("finish", &to.name, errno))?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, name: &[u8], new_name: &[u8], stat: &FileStat) -> Result<(), PublishError> {
        self.interrupt.check()?;
        let path = || self.source.path(Some(name));
        if let Form::AsItIs { odd: Odd::LeftOut, .. } = self.form
            && kind_of(stat).is_err()
        {
            return Ok(());
        }
        let (kind, _) = self.rules.check(stat, None, path)?;
        if self.form == Form::Canonical && self.rules.owned_by.is_some() && self.source.depth() == 0 {
            EntryRules::check_top(stat, kind, path)?;
        }
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
        if now.st_nlink > 1 && !self.is_first_name(name, &now)? {
            return Ok(());
        }
        let size = u64::try_from(now.st_size).unwrap_or(0);
        self.count(size)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let target = openat(self.target.here(), new_name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|errno| self.failed("create the copy of", name, errno))?;
        let (source, target) = (File::from(source), File::from(target));
        // What is shared may have grown since it was counted; it is counted again when it is hashed.
        if reflink::share_data(source.as_fd(), target.as_fd()).is_err() {
            self.copy_data(name, &source, &target, size)?;
        }
        self.finish(&target, &now, Kind::Regular)
            .map_err(|errno| self.failed("finish the copy of", name, errno).into())
    }

    /// Whether a file with several names is to be copied.
    fn is_first_name(&mut self, name: &[u8], stat: &FileStat) -> Result<bool, PublishError> {
        match self.form {
            Form::Canonical => Ok(true),
            Form::AsItIs { odd: Odd::LeftOut, .. } => Ok(self.seen.insert(identity(stat))),
            Form::AsItIs { odd: Odd::Refused, .. } => {
                Err(PublishError::Names { path: self.source.path(Some(name)), names: stat.st_nlink })
            }
        }
    }

    /// Copies the parts of a file that are not holes.
    fn copy_data(
        &mut self,
        name: &[u8],
        source: &File,
        target: &File,
        size: u64,
    ) -> Result<(), PublishError> {
        let copying = |this: &Self, error| this.failed("copy", name, error);
        target.set_len(size).map_err(|error| copying(self, error))?;
        let mut position = 0;
        while position < size {
            self.interrupt.check()?;
            position = match part_at(source, position, size).map_err(|error| copying(self, error))? {
                Part::Hole(end) => end,
                Part::Data(end) => {
                    let end = end.min(position + KERNEL_PIECE);
                    self.copy_range(source, target, position, end).map_err(|error| copying(self, error))?;
                    end
                }
            };
        }
        Ok(())
    }

    /// Copies at most [`KERNEL_PIECE`] bytes.
    fn copy_range(&mut self, source: &File, target: &File, mut at: u64, end: u64) -> io::Result<()> {
        while at < end {
            let (mut from, mut to) = (offset(at)?, offset(at)?);
            let wanted = usize::try_from(end - at).unwrap_or(PIECE);
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
            .and_then(|()| self.finish_symlink(new_name, stat))
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
        let entries = self.source.list(name, &source, most, self.interrupt)?;
        let entries = entries.ok_or_else(|| self.too_large())?;
        let (target, made) = mkdirat(self.target.here(), new_name, Mode::S_IRWXU)
            .and_then(|()| walk::open_directory(self.target.here(), new_name))
            .and_then(|target| fstat(&target).map(|made| (target, made)))
            .map_err(|errno| self.failed("create the copy of", name, errno))?;
        self.source.descend(name, source, identity(&now), entries);
        self.target.descend(new_name, target, identity(&made), Entries::default());
        Ok(())
    }

    /// Gives a copied file or directory, complete by now, its owner, mode and time.
    fn finish(&self, entry: impl AsFd, stat: &FileStat, kind: Kind) -> nix::Result<()> {
        match self.form {
            Form::Canonical => {
                fchmod(entry.as_fd(), canonical::mode_for(stat, kind))?;
                canonical::set_mtime(entry)
            }
            Form::AsItIs { owner: (uid, gid), .. } => {
                fchown(entry.as_fd(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
                fchmod(entry.as_fd(), Mode::from_bits_truncate(stat.st_mode & 0o1777))?;
                futimens(entry, &TimeSpec::UTIME_OMIT, &mtime(stat))
            }
        }
    }

    fn finish_symlink(&self, name: &[u8], stat: &FileStat) -> nix::Result<()> {
        let here = self.target.here();
        match self.form {
            Form::Canonical => canonical::set_mtime_of_symlink(here, name),
            Form::AsItIs { owner: (uid, gid), .. } => {
                let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                fchownat(here, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
                let flag = UtimensatFlags::NoFollowSymlink;
                utimensat(here, name, &TimeSpec::UTIME_OMIT, &mtime(stat), flag)
            }
        }
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

fn mtime(stat: &FileStat) -> TimeSpec {
    TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec)
}
