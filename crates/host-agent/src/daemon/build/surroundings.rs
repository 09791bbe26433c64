//! What a builder finds around it: its inputs, its files, its build directory, which may be one that was given; and what
//! becomes of that directory afterwards.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::Path;
use std::sync::Arc;

use tracing::warn;

use super::{Build, Gone};
use crate::daemon::given_directory::{GivenDirectory, GivenError};
use crate::daemon::inside::{Inside, connect};
use crate::publish::{Interrupt, Transfer};
use crate::request::{BuildDirectory, BuildFile};
use crate::slot::directory::SlotDirectory;
use crate::slot::{Slot, SlotError};

impl Build<'_> {
    /// Inputs, files, connections. Also tells whether the front end is still there.
    pub(super) async fn prepare(
        &mut self,
        slot: Slot,
    ) -> (Slot, Result<Inside, SlotError>, Result<(), Gone>) {
        let inputs = std::mem::take(&mut self.request.inputs);
        let files = std::mem::take(&mut self.request.files);
        let given = self.given.clone();
        let interrupt = Interrupt::default();
        let lending = interrupt.clone();
        let task = tokio::task::spawn_blocking(move || {
            let step = |error: &dyn std::error::Error| SlotError::Step(error.to_string());
            let lent = given.map_or(Ok(()), |given| {
                given.lend(&slot.directory, slot.uid.uid(), &lending).map_err(|error| step(&error))
            });
            let result = lent.and_then(|()| slot.show(&inputs)).and_then(|()| {
                write_files(&slot.directory.build(), &files, slot.uid.uid()).map_err(|error| {
                    SlotError::Step(format!("failed to write into the build directory: {error}"))
                })
            });
            (slot, inputs, files, result)
        });
        match self.finish(&interrupt, task).await {
            (Ok((mut slot, inputs, files, result)), still_here) => {
                self.request.inputs = inputs;
                self.request.files = files;
                let inside = result.and_then(|()| {
                    connect(&mut slot).map_err(|error| {
                        SlotError::Step(format!("failed to take up the slot's connections: {error}"))
                    })
                });
                (slot, inside, still_here)
            }
            // The closure does not panic; if it ever does, the panic is the daemon's own.
            (Err(error), _) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Opened at once, so that a directory that is not the peer's is refused before anything waits for it.
    pub(super) async fn open_given(&mut self) -> Result<(), GivenError> {
        if let BuildDirectory::Given { path } = &self.request.build_directory {
            if !self.request.files.is_empty() {
                return Err(GivenError::Files);
            }
            let given = GivenDirectory::open_soon(path.as_path(), self.connection.peer).await?;
            self.given = Some(Arc::new(given));
        }
        Ok(())
    }

    /// Gives what the builder has left to whoever gave the directory, if one was given, whether or not he still waits.
    pub(super) async fn take_back(&mut self, directory: &SlotDirectory, builder: u32) {
        let Some(given) = self.given.clone() else { return };
        let directory = directory.clone();
        let taken = tokio::task::spawn_blocking(move || {
            given.take_back(&directory, builder).map_err(|error| error.to_string())
        });
        if let Err(error) = taken.await.map_err(|error| error.to_string()).and_then(|taken| taken) {
            warn!(build = self.id, error, "failed to give a build directory back");
        }
    }

    pub(super) fn builds_in_own_directory(&self) -> bool {
        self.request.build_directory == BuildDirectory::Own
    }

    /// Keeps the slot's build directory for whoever asked.
    pub(super) async fn keep(&mut self, directory: &SlotDirectory, builder: u32) -> Result<(), Gone> {
        let peer = self.connection.peer;
        let name = self.request.derivation.name().trim_end_matches(".drv").to_owned();
        let state = Arc::clone(&self.daemon.state);
        let directory = directory.clone();
        let interrupt = Interrupt::default();
        let keeping = interrupt.clone();
        let task = tokio::task::spawn_blocking(move || {
            let transfer = Transfer { builder, owner: (peer.uid, peer.gid), interrupt: &keeping };
            state.keep(&directory, &name, transfer).map_err(|error| error.to_string())
        });
        let (kept, still_here) = self.finish(&interrupt, task).await;
        match kept.map_err(|error| error.to_string()).and_then(|kept| kept) {
            Ok(kept) => self.kept = Some(kept),
            Err(error) => warn!(build = self.id, error, "failed to keep a build directory"),
        }
        still_here
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
