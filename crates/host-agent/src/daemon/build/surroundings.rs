//! What a builder finds around it: its inputs, its files, its build directory, which may be one that was given; and what
//! becomes of that directory afterwards.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::Path;

use tracing::warn;

use super::Build;
use crate::daemon::given_directory::{GivenDirectory, GivenError};
use crate::daemon::inside::{Inside, connect};
use crate::request::{BuildDirectory, BuildFile};
use crate::slot::directory::SlotDirectory;
use crate::slot::{Slot, SlotError};

impl Build<'_> {
    /// Inputs, files, connections.
    pub(super) async fn prepare(&mut self, slot: Slot) -> (Slot, Result<Inside, SlotError>) {
        let inputs = std::mem::take(&mut self.request.inputs);
        let files = std::mem::take(&mut self.request.files);
        let mut given = self.given.take();
        let may_stall = self.daemon.config.retry_stalled;
        let task = tokio::task::spawn_blocking(move || {
            let lent = given.as_mut().map_or(Ok(()), |given| {
                if may_stall {
                    given.remember();
                }
                let tree = given.lend(slot.uid.uid()).map_err(|error| SlotError::Step(error.to_string()))?;
                slot.show_build_directory(tree.as_fd())
            });
            let result = lent.and_then(|()| slot.show(&inputs)).and_then(|()| {
                write_files(&slot.directory.build(), &files, slot.uid.uid()).map_err(|error| {
                    SlotError::Step(format!("failed to write into the build directory: {error}"))
                })
            });
            (slot, inputs, files, given, result)
        });
        match task.await {
            Ok((mut slot, inputs, files, given, result)) => {
                self.request.inputs = inputs;
                self.request.files = files;
                self.given = given;
                let inside = result.and_then(|()| {
                    connect(&mut slot).map_err(|error| {
                        SlotError::Step(format!("failed to take up the slot's connections: {error}"))
                    })
                });
                (slot, inside)
            }
            // The closure does not panic; if it ever does, the panic is the daemon's own.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Opened at once, so that a directory that is not the peer's is refused before anything waits for it.
    pub(super) async fn open_given(&mut self) -> Result<(), GivenError> {
        if let BuildDirectory::Given { path } = &self.request.build_directory {
            if !self.request.files.is_empty() {
                return Err(GivenError::Files);
            }
            self.given = Some(GivenDirectory::open_soon(path.as_path(), self.connection.peer).await?);
        }
        Ok(())
    }

    pub(super) async fn take_back(&mut self) {
        if let Some(given) = self.given.take() {
            match given.take_back_soon().await {
                Ok(given) => self.given = Some(given),
                Err(error) => warn!(build = self.id, error, "failed to give a build directory back"),
            }
        }
    }

    /// Whether the build directory is as it was before a builder ran in it, so that another may.
    pub(super) async fn is_as_before(&mut self) -> bool {
        if self.builds_in_own_directory() {
            return true;
        }
        let Some(given) = self.given.take() else { return false };
        match given.restore_soon().await {
            Ok(given) => self.given = Some(given),
            Err(error) => {
                warn!(build = self.id, error, "a stalled build is not tried again in its directory")
            }
        }
        self.given.is_some()
    }

    pub(super) fn builds_in_own_directory(&self) -> bool {
        self.request.build_directory == BuildDirectory::Own
    }

    pub(super) async fn keep(&mut self, directory: &SlotDirectory, builder: u32) {
        let peer = self.connection.peer;
        let name = self.request.derivation.name().trim_end_matches(".drv").to_owned();
        let build = directory.build();
        let state = std::sync::Arc::clone(&self.daemon.state);
        let kept = tokio::task::spawn_blocking(move || {
            state.keep(&build, &name, builder, (peer.uid, peer.gid)).map_err(|error| error.to_string())
        });
        match kept.await.map_err(|error| error.to_string()).and_then(|kept| kept) {
            Ok(kept) => self.kept = Some(kept),
            Err(error) => warn!(build = self.id, error, "failed to keep a build directory"),
        }
    }
}

/// Writes the files that a builder finds in its directory: mode 0644, owned by it. Nothing runs in the slot yet.
fn write_files(directory: &Path, files: &[BuildFile], uid: u32) -> io::Result<()> {
    for file in files {
        if file.name.is_empty() || file.name.contains(&b'/') || matches!(&*file.name, b"." | b"..") {
            return Err(io::Error::other(format!("'{}' is not a file name", file.name)));
        }
        let path = directory.join(file.name.as_path());
        let mut opened: File = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path)?;
        opened.write_all(&file.contents)?;
        chown(&path, Some(uid), Some(uid))?;
    }
    Ok(())
}
