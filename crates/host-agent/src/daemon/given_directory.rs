//! A build directory of whoever asks: what is in it is lent to the builder, and what the builder leaves comes back.
//!
//! The builder never works in it. Whoever gives a directory can reach it by paths and links of his own, and a file that
//! changed hands there would be his and the builder's at once; and Nix itself opens it to everybody as soon as it ends a
//! build of which the directory is to be kept (`cleanupBuild`, Nix 2.32 to 2.35), whether or not the builder is dead by
//! then. So the few files that Nix has put there are copied into the slot's own directory, and the caller's are neither
//! changed nor given to anyone. What the builder leaves is handed over in the slot's directory, where only root can look, and
//! is then moved into the caller's, in place of what is there.
//!
//! The directory is opened once, by descriptor; what its path leads to afterwards does not matter. Only its owner may give it,
//! only what is his is read, and what is done in it is done with his rights: nobody can have anything of others copied,
//! removed or given away.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, fstat};
use thiserror::Error;

use super::peer::Peer;
use super::rights_of::with_rights_of;
use crate::publish::{
    CopyRules, Form, Interrupt, Odd, PublishError, Transfer, copy_tree, remove_tree, rename_new_at,
};
use crate::slot::directory::{DirectoryError, SlotDirectory};

/// Why a directory can't be built in.
#[derive(Debug, Error)]
pub(super) enum GivenError {
    #[error("failed to open the build directory '{0}': a part of its path is a symbolic link")]
    Link(PathBuf),
    #[error("failed to open the build directory '{0}': its path is not absolute")]
    Relative(PathBuf),
    #[error("failed to open the build directory '{path}': {error}")]
    Open { path: PathBuf, error: io::Error },
    #[error("refused to build in '{path}': it belongs to uid {owner}, and uid {peer} asks")]
    Owner { path: PathBuf, owner: u32, peer: u32 },
    #[error("refused to build in '{path}': group or others may write to it (mode {mode:04o})")]
    Writable { path: PathBuf, mode: u32 },
    #[error("failed to list the build directory: {0}")]
    List(io::Error),
    #[error("failed to lend what is in the build directory to the builder: {0}")]
    Lend(PublishError),
    #[error("files can't be put into a build directory that was given")]
    Files,
    #[error("the task that opens the build directory panicked")]
    Panicked,
}

/// Why what a builder has left did not come back.
#[derive(Debug, Error)]
pub(super) enum ReturnError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("failed to move it into the build directory: {0}")]
    Move(io::Error),
}

/// A directory that its owner has given to build in.
#[derive(Debug)]
pub(super) struct GivenDirectory {
    handle: OwnedFd,
    owner: (u32, u32),
}

impl GivenDirectory {
    /// Opens and checks it: the peer's own (anybody's, for root), and nobody else's to write to.
    fn open(path: &Path, peer: Peer) -> Result<Self, GivenError> {
        if !path.is_absolute() {
            return Err(GivenError::Relative(path.to_owned()));
        }
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
        let handle = openat2(AT_FDCWD, path, how).map_err(|errno| match errno {
            Errno::ELOOP => GivenError::Link(path.to_owned()),
            errno => GivenError::Open { path: path.to_owned(), error: errno.into() },
        })?;
        let stat = fstat(&handle)
            .map_err(|errno| GivenError::Open { path: path.to_owned(), error: errno.into() })?;
        if peer.uid != 0 && stat.st_uid != peer.uid {
            return Err(GivenError::Owner { path: path.to_owned(), owner: stat.st_uid, peer: peer.uid });
        }
        if stat.st_mode & 0o022 != 0 {
            return Err(GivenError::Writable { path: path.to_owned(), mode: stat.st_mode & 0o7777 });
        }
        Ok(Self { handle, owner: (stat.st_uid, stat.st_gid) })
    }

    /// [`open`](Self::open), on a thread that may block.
    pub(super) async fn open_soon(path: &Path, peer: Peer) -> Result<Self, GivenError> {
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || Self::open(&path, peer)).await;
        opened.unwrap_or(Err(GivenError::Panicked))
    }

    /// Copies what is in it into the build directory of a slot, where it belongs to `builder`; blocking. Refuses what is
    /// not its owner's, and anything but directories, symbolic links and files with one name.
    pub(super) fn lend(
        &self,
        slot: &SlotDirectory,
        builder: u32,
        interrupt: &Interrupt,
    ) -> Result<(), GivenError> {
        let rules = CopyRules {
            owned_by: Some(self.owner.0),
            max_bytes: None,
            form: Form::AsItIs { owner: (builder, builder), odd: Odd::Refused },
            interrupt: interrupt.clone(),
        };
        let build = File::open(slot.build()).map_err(GivenError::List)?;
        for name in names(self.handle.as_fd()).map_err(GivenError::List)? {
            copy_tree(self.handle.as_fd(), &name, build.as_fd(), &name, &rules).map_err(GivenError::Lend)?;
        }
        Ok(())
    }

    /// Puts what `builder` has left in the slot's build directory in place of what is here; blocking. Everything in the
    /// slot must be dead. Does nothing if the directory is gone, as it is when Nix has ended the build by itself.
    pub(super) fn take_back(&self, slot: &SlotDirectory, builder: u32) -> Result<(), ReturnError> {
        // It can't end early: until it is done, what the builder has left is in nobody's hands.
        let interrupt = Interrupt::default();
        if self.is_gone() {
            return Ok(());
        }
        let transfer = Transfer { builder, owner: self.owner, interrupt: &interrupt };
        slot.hand_build_over(transfer)?;
        let build = File::open(slot.build()).map_err(ReturnError::Move)?;
        match with_rights_of(self.owner, || self.replace_with(build.as_fd())) {
            Err(_) if self.is_gone() => Ok(()),
            result => result.map_err(ReturnError::Move),
        }
    }

    fn is_gone(&self) -> bool {
        fstat(&self.handle).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// Removes what is here, and moves here what is in `build`.
    fn replace_with(&self, build: BorrowedFd<'_>) -> io::Result<()> {
        let here = self.handle.as_fd();
        for name in names(here)? {
            remove_tree(here, &name).map_err(io::Error::other)?;
        }
        let rules =
            CopyRules { form: Form::AsItIs { owner: self.owner, odd: Odd::LeftOut }, ..CopyRules::default() };
        for name in names(build)? {
            let path = Path::new(OsStr::from_bytes(&name));
            match rename_new_at(build, path, here, path) {
                // On another file system, or behind another mount of the same.
                Err(Errno::EXDEV) => {
                    copy_tree(build, &name, here, &name, &rules).map_err(io::Error::other)?;
                }
                result => result?,
            }
        }
        Ok(())
    }
}

/// What is in a directory.
fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut names = Vec::new();
    for entry in Dir::openat(directory, c".", flags, Mode::empty())?.iter() {
        let name = entry?.file_name().to_bytes().to_vec();
        if !matches!(&name[..], b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}
