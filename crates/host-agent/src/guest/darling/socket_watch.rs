//! Waits for a file to appear whose directories may not exist yet (inotify(7)).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Watches for one file.
#[derive(Debug)]
pub(super) struct SocketWatch {
    inotify: Inotify,
    path: PathBuf,
    /// The deepest directory watched so far.
    watched: PathBuf,
}

impl SocketWatch {
    /// For `path`, which is below `root`, an existing directory.
    pub(super) fn new(root: &Path, path: PathBuf) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(root, flags())?;
        Ok(Self { inotify, path, watched: root.to_owned() })
    }

    /// Readable when it is worth asking again.
    pub(super) fn events(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Whether the file is there.
    pub(super) fn is_there(&mut self) -> io::Result<bool> {
        match self.inotify.read_events() {
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        // A directory may have been filled before it was watched: look again after each step.
        while let Some(next) = self.next_directory() {
            match self.inotify.add_watch(&next, flags()) {
                Ok(_) => self.watched = next,
                Err(Errno::ENOENT) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.path.symlink_metadata().is_ok())
    }

    fn next_directory(&self) -> Option<PathBuf> {
        let mut rest = self.path.strip_prefix(&self.watched).ok()?.components();
        let next = rest.next()?;
        // The last component is the file.
        rest.next()?;
        Some(self.watched.join(next))
    }
}

fn flags() -> AddWatchFlags {
    // Changes of attributes too: the socket's mode is set just before somebody listens on it.
    AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ATTRIB
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    #[test]
    fn a_file_is_seen_however_its_directories_come_to_be() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/c/file");
        let mut watch = SocketWatch::new(directory.path(), path.clone()).unwrap();
        assert!(!watch.is_there().unwrap());
        let parent = path.parent().unwrap().to_owned();
        let maker = std::thread::spawn({
            let path = path.clone();
            move || {
                std::fs::create_dir_all(parent).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(20));
                std::fs::write(path, "").unwrap();
            }
        });
        while !watch.is_there().unwrap() {
            let mut fds = [PollFd::new(watch.events(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut fds, PollTimeout::from(5000u16)), Ok(1), "no event came");
        }
        maker.join().unwrap();
    }
}
