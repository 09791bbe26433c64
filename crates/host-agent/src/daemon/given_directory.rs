//! A build directory of whoever asks: lent to the builder, taken back when everything in the slot is dead.
//!
//! It is opened once, by descriptor; what its path leads to afterwards does not matter. Only its owner may give it, and
//! only what belongs to that owner changes hands, so nobody can have anything of others mounted or given away.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::fstat;
use thiserror::Error;
use tracing::info;

use super::peer::Peer;
use super::snapshot::Snapshot;
use crate::mount::{Attributes, Extent, clone_tree, set_attributes};
use crate::publish::{TreeError, pass_on};

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
    /// Any of those above, as it is told to everybody but root: what differs would tell of paths that are not theirs to see.
    #[error(
        "refused to build in '{path}': uid {uid} can have its builds in a directory of its own, given by an absolute path without \
         symbolic links, to which neither group nor others may write; the daemon's log says what is different here"
    )]
    Unfit { path: PathBuf, uid: u32 },
    #[error("failed to lend the build directory to the builder: {0}")]
    Lend(TreeError),
    #[error("failed to mount the build directory: {0}")]
    Mount(io::Error),
    #[error("files can't be put into a build directory that was given")]
    Files,
    #[error("the task that opens the build directory panicked")]
    Panicked,
}

impl GivenError {
    /// Why a directory can't be opened, in words for this peer; the log has it as it is.
    fn told_to(self, peer: Peer, path: &Path) -> Self {
        if peer.is_root() || matches!(self, GivenError::Panicked) {
            return self;
        }
        info!(uid = peer.uid, error = %self, "a build directory is not fit");
        GivenError::Unfit { path: path.to_owned(), uid: peer.uid }
    }
}

/// A directory that its owner has given to build in.
#[derive(Debug)]
pub(super) struct GivenDirectory {
    handle: OwnedFd,
    owner: (u32, u32),
    lent_to: Option<u32>,
    /// What was in it when it was first lent.
    snapshot: Option<Snapshot>,
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
        if !peer.is_root() && stat.st_uid != peer.uid {
            return Err(GivenError::Owner { path: path.to_owned(), owner: stat.st_uid, peer: peer.uid });
        }
        if stat.st_mode & 0o022 != 0 {
            return Err(GivenError::Writable { path: path.to_owned(), mode: stat.st_mode & 0o7777 });
        }
        Ok(Self { handle, owner: (stat.st_uid, stat.st_gid), lent_to: None, snapshot: None })
    }

    /// [`open`](Self::open), on a thread that may block.
    pub(super) async fn open_soon(path: &Path, peer: Peer) -> Result<Self, GivenError> {
        let opened = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || Self::open(&opened, peer)).await;
        opened.unwrap_or(Err(GivenError::Panicked)).map_err(|error| error.told_to(peer, path))
    }

    /// [`take_back`](Self::take_back), on a thread that may block.
    pub(super) async fn take_back_soon(mut self) -> Result<Self, String> {
        let taken = tokio::task::spawn_blocking(move || self.take_back().map(|()| self)).await;
        taken.map_or(Err("the task that gives it back panicked".into()), |taken| {
            taken.map_err(|error| error.to_string())
        })
    }

    /// Makes it as it was before it was first lent, if that is known, on a thread that may block.
    pub(super) async fn restore_soon(self) -> Result<Self, String> {
        let restored = tokio::task::spawn_blocking(move || {
            let snapshot = self.snapshot.as_ref().ok_or("too much was in it to be kept")?;
            snapshot
                .restore(self.handle.as_fd(), self.owner.0)
                .map_err(|error| format!("failed to restore it: {error}"))?;
            Ok(self)
        });
        restored.await.unwrap_or(Err("the task that restores it panicked".into()))
    }

    /// Keeps what is in it for [`restore_soon`](Self::restore_soon), if that is little; blocking. Before it is lent.
    pub(super) fn remember(&mut self) {
        if self.snapshot.is_none() {
            // Not to have a second try is no reason to refuse the first.
            self.snapshot = Snapshot::take(self.handle.as_fd(), self.owner.0).ok().flatten();
        }
    }

    /// Gives what its owner owns in it to the builder, and returns a detached mount of it; blocking.
    pub(super) fn lend(&mut self, builder: u32) -> Result<OwnedFd, GivenError> {
        // Before the first change, so that a failure half way is undone as well.
        self.lent_to = Some(builder);
        pass_on(self.handle.as_fd(), self.owner.0, (builder, builder)).map_err(GivenError::Lend)?;
        let tree = clone_tree(self.handle.as_fd(), c"", Extent::This).map_err(GivenError::Mount)?;
        let attributes = Attributes {
            no_suid: true,
            no_dev: true,
            propagation: libc::MS_PRIVATE,
            ..Attributes::default()
        };
        set_attributes(&tree, attributes, Extent::This).map_err(GivenError::Mount)?;
        Ok(tree)
    }

    /// Gives back what the builder owns in it; blocking. Everything that ran as the builder must be dead.
    fn take_back(&mut self) -> Result<(), TreeError> {
        match self.lent_to.take() {
            Some(builder) => pass_on(self.handle.as_fd(), builder, self.owner),
            None => Ok(()),
        }
    }
}
