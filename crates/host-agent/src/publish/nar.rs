//! The NAR serialisation of a tree, and the walk that makes it.
//!
//! Format: every string is its length as 64 bits little endian, its bytes, and zeros up to a multiple of 8. A NAR is
//! `nix-archive-1`, then a node; a node is `(` `type`, then `regular` [`executable` ``] `contents` DATA or `symlink`
//! `target` TARGET or `directory` and for each entry `entry` `(` `name` NAME `node` NODE `)`, then `)`. Entries are
//! sorted by the bytes of their names (Nix `src/libutil/archive.cc`).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise, readlinkat};
use nix::sys::stat::{FileStat, fstat};

use super::canonical;
use super::entry_checks::{ENTRY_NAR_MIN, EntryRules, Kind, Links, Standing};
use super::hashing::{Hashed, Pipeline, ThreadDied};
use super::holes::{Part, part_at};
use super::interrupt::Interrupt;
use super::references::Candidates;
use super::walk::{self, Trail, identity};
use super::{Leftover, PublishError, Published, TreeError};
use crate::request::{DigestMethod, DigestRequest};

/// From this size on the kernel is told that a file is read from start to end, and asked where its holes are, bytes.
const LARGE: u64 = 1024 * 1024;

/// What `st_blocks` counts (stat(3type)), bytes.
const BLOCK: u64 = 512;

impl From<ThreadDied> for PublishError {
    fn from(_: ThreadDied) -> Self {
        Self::HashingThread
    }
}

/// Publishes the output of this name in `parent`, whose entries belong to `builder`.
pub(super) fn publish_in_place(
    leftover: &Leftover<'_>,
    parent: BorrowedFd<'_>,
    builder: u32,
    candidates: &Candidates,
    links: &mut Links,
) -> Result<Published, PublishError> {
    let name = leftover.name.as_str();
    let above = fstat(parent).map_err(|errno| TreeError::new("examine", name.to_owned(), errno))?;
    let serialiser = Serialiser {
        trail: Trail::new(parent),
        pipeline: Pipeline::new(candidates, leftover.digest),
        digest: leftover.digest,
        top: name,
        limit: leftover.max_nar_bytes,
        interrupt: leftover.interrupt,
        depth: 0,
        treatment: Some(Treatment {
            rules: EntryRules { device: above.st_dev, owned_by: Some(builder) },
            owner: leftover.owner,
            links,
        }),
    };
    serialiser.run(name.as_bytes())
}

/// Hashes and scans a tree as it is: no checks but of types, no changes. For measurements and tests.
pub fn hash_and_scan(
    parent: BorrowedFd<'_>,
    name: &[u8],
    candidates: &Candidates,
    digest: Option<DigestRequest>,
) -> Result<Published, PublishError> {
    let serialiser = Serialiser {
        trail: Trail::new(parent),
        pipeline: Pipeline::new(candidates, digest),
        digest,
        top: &name.escape_ascii().to_string(),
        limit: None,
        interrupt: &Interrupt::default(),
        depth: 0,
        treatment: None,
    };
    serialiser.run(name)
}

/// What becomes of the entries besides being read.
struct Treatment<'a> {
    rules: EntryRules,
    owner: (u32, u32),
    links: &'a mut Links,
}

struct Serialiser<'a> {
    trail: Trail<'a>,
    pipeline: Pipeline<'a>,
    digest: Option<DigestRequest>,
    /// The output's name, for messages.
    top: &'a str,
    limit: Option<u64>,
    interrupt: &'a Interrupt,
    /// Of the deepest entry so far.
    depth: usize,
    treatment: Option<Treatment<'a>>,
}

impl Serialiser<'_> {
    fn run(mut self, top: &[u8]) -> Result<Published, PublishError> {
        self.string(b"nix-archive-1")?;
        self.entry(top)?;
        let mut name = Vec::new();
        while self.trail.depth() > 0 {
            if self.trail.next_entry(&mut name) {
                self.strings(&[b"entry", b"(", b"name", &name, b"node"])?;
                self.entry(&name)?;
            } else {
                self.trail.ascend()?;
                self.string(b")")?;
                self.end_entry()?;
            }
        }
        let Hashed { sha256, size, references, digest } = self.pipeline.finish()?;
        Ok(Published {
            nar_sha256: sha256,
            nar_size: size,
            references,
            digest: digest.map(Into::into),
            depth: self.depth as u64,
        })
    }

    /// Serialises one entry of the current directory; of a directory only the start.
    fn entry(&mut self, name: &[u8]) -> Result<(), PublishError> {
        self.interrupt.check()?;
        let depth = self.trail.depth();
        let is_top = depth == 0;
        self.depth = self.depth.max(depth);
        let stat = walk::stat_entry(self.trail.here(), name).map_err(|errno| match errno {
            Errno::ENOENT if is_top => PublishError::Missing(self.top.to_owned()),
            errno => self.failed("examine", name, errno).into(),
        })?;
        let (kind, standing) = self.check(name, &stat)?;
        if is_top {
            let path = || self.trail.path(Some(name));
            if self.treatment.is_some() {
                EntryRules::check_top(&stat, kind, path)?;
            }
            let flat = matches!(self.digest, Some(DigestRequest { method: DigestMethod::Flat, .. }));
            if flat && (kind != Kind::Regular || canonical::is_executable(&stat)) {
                return Err(PublishError::NotFlat { path: path() });
            }
        }
        self.strings(&[b"(", b"type"])?;
        match kind {
            Kind::Regular => self.regular(name, &stat, standing)?,
            Kind::Symlink => self.symlink(name, &stat, standing)?,
            Kind::Directory => return self.directory(name, &stat, standing),
        }
        self.end_entry()
    }

    /// Closes the brackets around an entry of a directory.
    fn end_entry(&mut self) -> Result<(), PublishError> {
        if self.trail.depth() > 0 { self.string(b")") } else { Ok(()) }
    }

    fn regular(&mut self, name: &[u8], stat: &FileStat, standing: Standing) -> Result<(), PublishError> {
        let file =
            walk::open_regular(self.trail.here(), name).map_err(|errno| self.failed("open", name, errno))?;
        let now = self.same(name, &file, stat)?;
        if standing == Standing::Fresh
            && let Some(treatment) = &mut self.treatment
        {
            canonical::canonicalise_open(file.as_fd(), &now, Kind::Regular, treatment.owner)
                .map_err(|errno| self.failed("canonicalise", name, errno))?;
            self.remember(&now, Kind::Regular);
        }
        self.string(b"regular")?;
        if canonical::is_executable(&now) {
            self.strings(&[b"executable", b""])?;
        }
        self.string(b"contents")?;
        let size = u64::try_from(now.st_size).unwrap_or(0);
        self.reserve(size)?;
        self.pipeline.write(&size.to_le_bytes())?;
        if matches!(self.digest, Some(DigestRequest { method: DigestMethod::Flat, .. })) {
            self.pipeline.flat_part(size);
        }
        let has_holes = size >= LARGE && u64::try_from(now.st_blocks).unwrap_or(0) < size / BLOCK;
        self.contents(name, &File::from(file), size, has_holes)?;
        self.pad(size)?;
        self.string(b")")
    }

    /// Exactly as many bytes as were announced. Holes are not read.
    fn contents(&mut self, name: &[u8], file: &File, size: u64, has_holes: bool) -> Result<(), PublishError> {
        if size >= LARGE {
            // Only a hint.
            let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL);
        }
        let mut position = 0;
        while position < size {
            let part = match has_holes {
                true => part_at(file, position, size).map_err(|error| self.failed("read", name, error))?,
                false => Part::Data(size),
            };
            position = match part {
                Part::Data(end) => self.data(name, file, position, end)?,
                Part::Hole(end) => self.zeros(position, end)?,
            };
        }
        Ok(())
    }

    /// Reads from here to there. Returns where that is.
    fn data(&mut self, name: &[u8], file: &File, mut position: u64, end: u64) -> Result<u64, PublishError> {
        while position < end {
            self.interrupt.check()?;
            let space = self.pipeline.space()?;
            let wanted = usize::try_from(end - position).unwrap_or(usize::MAX).min(space.len());
            match file.read_at(&mut space[..wanted], position) {
                Ok(0) => return Err(PublishError::Changed { path: self.trail.path(Some(name)) }),
                Ok(length) => {
                    self.pipeline.advance(length);
                    position += length as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("read", name, error).into()),
            }
        }
        Ok(end)
    }

    /// As many zeros. Returns the end.
    fn zeros(&mut self, mut position: u64, end: u64) -> Result<u64, PublishError> {
        while position < end {
            self.interrupt.check()?;
            let space = self.pipeline.space()?;
            let length = usize::try_from(end - position).unwrap_or(usize::MAX).min(space.len());
            space[..length].fill(0);
            self.pipeline.advance(length);
            position += length as u64;
        }
        Ok(end)
    }

    fn symlink(&mut self, name: &[u8], stat: &FileStat, standing: Standing) -> Result<(), PublishError> {
        let link =
            walk::open_handle(self.trail.here(), name).map_err(|errno| self.failed("open", name, errno))?;
        let now = self.same(name, &link, stat)?;
        if standing == Standing::Fresh
            && let Some(treatment) = &mut self.treatment
        {
            let here = self.trail.here();
            canonical::canonicalise_symlink(link.as_fd(), here, name, &now, treatment.owner)
                .map_err(|errno| self.failed("canonicalise", name, errno))?;
            self.remember(&now, Kind::Symlink);
        }
        let target = readlinkat(&link, c"").map_err(|errno| self.failed("read", name, errno))?;
        self.strings(&[b"symlink", b"target", target.as_bytes(), b")"])
    }

    fn directory(&mut self, name: &[u8], stat: &FileStat, standing: Standing) -> Result<(), PublishError> {
        let directory = walk::open_directory(self.trail.here(), name).map_err(|errno| match errno {
            Errno::EXDEV => PublishError::OtherFileSystem { path: self.trail.path(Some(name)) },
            errno => self.failed("open", name, errno).into(),
        })?;
        let now = self.same(name, &directory, stat)?;
        if standing == Standing::Fresh
            && let Some(treatment) = &self.treatment
        {
            canonical::canonicalise_open(directory.as_fd(), &now, Kind::Directory, treatment.owner)
                .map_err(|errno| self.failed("canonicalise", name, errno))?;
        }
        self.string(b"directory")?;
        // Nothing is listed that could not be within the limit: what the list takes is memory.
        let left = self.limit.map(|limit| limit.saturating_sub(self.pipeline.position()) / ENTRY_NAR_MIN);
        let most = left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let entries = self.trail.list(name, &directory, most, self.interrupt)?;
        let entries = entries.ok_or_else(|| self.too_large())?;
        self.trail.descend(name, directory, identity(&now), entries);
        Ok(())
    }

    fn check(&self, name: &[u8], stat: &FileStat) -> Result<(Kind, Standing), PublishError> {
        let path = || self.trail.path(Some(name));
        match &self.treatment {
            Some(Treatment { rules, owner, links }) => rules.check(stat, Some((links, *owner)), path),
            None => EntryRules { device: stat.st_dev, owned_by: None }.check(stat, None, path),
        }
    }

    /// Makes sure that what was opened is what was checked; returns what is true of it now.
    fn same(&self, name: &[u8], opened: impl AsFd, checked: &FileStat) -> Result<FileStat, PublishError> {
        let now = fstat(opened).map_err(|errno| self.failed("examine", name, errno))?;
        let unchanged = identity(&now) == identity(checked) && now.st_uid == checked.st_uid;
        if unchanged { Ok(now) } else { Err(PublishError::Changed { path: self.trail.path(Some(name)) }) }
    }

    fn remember(&mut self, stat: &FileStat, kind: Kind) {
        if let Some(treatment) = &mut self.treatment {
            treatment.links.remember(stat, kind);
        }
    }

    fn failed(&self, action: &'static str, name: &[u8], source: impl Into<io::Error>) -> TreeError {
        TreeError::new(action, self.trail.path(Some(name)), source)
    }

    fn too_large(&self) -> PublishError {
        PublishError::TooLarge { path: self.top.to_owned(), limit: self.limit.unwrap_or(u64::MAX) }
    }

    /// Fails if that many more bytes would exceed the limit.
    fn reserve(&self, length: u64) -> Result<(), PublishError> {
        match self.limit {
            Some(limit) if self.pipeline.position().saturating_add(length) > limit => Err(self.too_large()),
            _ => Ok(()),
        }
    }

    fn strings(&mut self, strings: &[&[u8]]) -> Result<(), PublishError> {
        strings.iter().try_for_each(|bytes| self.string(bytes))
    }

    fn string(&mut self, bytes: &[u8]) -> Result<(), PublishError> {
        let length = bytes.len() as u64;
        self.reserve(8 + length.next_multiple_of(8))?;
        self.pipeline.write(&length.to_le_bytes())?;
        self.pipeline.write(bytes)?;
        self.pad(length)
    }

    fn pad(&mut self, length: u64) -> Result<(), PublishError> {
        let padding = (length.next_multiple_of(8) - length) as usize;
        Ok(self.pipeline.write(&[0; 8][..padding])?)
    }
}
