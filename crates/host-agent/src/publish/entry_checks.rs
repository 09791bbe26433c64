//! What an entry of an output may be.
//!
//! These are Nix's rules for local builds (`canonicalisePathMetaData` and `registerOutputs`, 2.8 to 2.34), which nobody
//! else applies to the outputs of a build hook: regular files, directories and symlinks only, all of them the
//! builder's, all on one file system. Without the second rule `ln /etc/shadow $out/x` would get that file made
//! world-readable. It has one exception: a file that this very build's publishing has already given its new owner
//! may turn up again under another name.

use std::collections::HashSet;

use nix::sys::stat::{FileStat, SFlag};

use super::PublishError;
use super::canonical;
use super::walk::{Identity, identity};

/// Least number of bytes that an entry of a directory takes in a NAR: the strings around it, the shortest name and the
/// shortest node.
pub(super) const ENTRY_NAR_MIN: u64 = 168;

/// The kinds of entries that a store may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Regular,
    Directory,
    Symlink,
}

/// What a store may hold, or what the other thing is called.
pub(super) fn kind_of(stat: &FileStat) -> Result<Kind, &'static str> {
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => Ok(Kind::Regular),
        SFlag::S_IFDIR => Ok(Kind::Directory),
        SFlag::S_IFLNK => Ok(Kind::Symlink),
        SFlag::S_IFIFO => Err("fifo"),
        SFlag::S_IFSOCK => Err("socket"),
        SFlag::S_IFCHR => Err("character device"),
        SFlag::S_IFBLK => Err("block device"),
        _ => Err("file of unknown type"),
    }
}

/// The files with several names that publishing has canonicalised so far; one for all outputs of a build.
#[derive(Debug, Default)]
pub struct Links(HashSet<Identity>);

impl Links {
    /// To be called once an entry has its new owner. Directories can't have a second name.
    pub(super) fn remember(&mut self, stat: &FileStat, kind: Kind) {
        if kind != Kind::Directory && stat.st_nlink > 1 {
            self.0.insert(identity(stat));
        }
    }
}

/// What entries are held against.
pub(super) struct EntryRules {
    /// The file system that all of it must be on.
    pub device: u64,
    /// Who must own every entry; `None`: does not matter.
    pub owned_by: Option<u32>,
}

/// How an entry that may stay is to be treated.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// As the builder left it.
    Fresh,
    /// Canonicalised before, under another name.
    Seen,
}

impl EntryRules {
    /// Checks an entry before anything is done to it. `owner` is who canonicalised entries belong to.
    pub fn check(
        &self,
        stat: &FileStat,
        seen: Option<(&Links, (u32, u32))>,
        path: impl Fn() -> String,
    ) -> Result<(Kind, Standing), PublishError> {
        let kind = kind_of(stat).map_err(|kind| PublishError::FileType { path: path(), kind })?;
        if stat.st_dev != self.device {
            return Err(PublishError::OtherFileSystem { path: path() });
        }
        let Some(expected) = self.owned_by.filter(|expected| *expected != stat.st_uid) else {
            return Ok((kind, Standing::Fresh));
        };
        match seen {
            Some((links, owner))
                if links.0.contains(&identity(stat)) && canonical::is_canonical(stat, kind, owner) =>
            {
                Ok((kind, Standing::Seen))
            }
            _ => Err(PublishError::Ownership { path: path(), uid: stat.st_uid, expected }),
        }
    }

    /// Further rules for the top of an output: Nix calls one that others may write to "suspicious".
    pub fn check_top(stat: &FileStat, kind: Kind, path: impl Fn() -> String) -> Result<(), PublishError> {
        if kind != Kind::Symlink && stat.st_mode & 0o022 != 0 {
            return Err(PublishError::Writable { path: path(), mode: stat.st_mode & 0o7777 });
        }
        Ok(())
    }
}
