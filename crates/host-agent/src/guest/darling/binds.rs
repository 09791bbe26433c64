//! Shows the store view and the build directory inside Darling under their own names.
//!
//! Bind mounts in the container's mount namespace, not links to `/Volumes/SystemRoot`: those would show in `pwd -P` and so
//! in what builds record. The view's mount is shared, so inputs that are mounted there later appear inside as well.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::AT_FDCWD;
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;

use crate::mount::{Extent, attach, clone_tree};
use crate::request::BUILD_DIR;

/// Binds `store` and `/build` below the prefix, in the mount namespace of the prefix's server. This process must have one
/// thread only, and is back in its own namespace afterwards. Returns the prefix as it is in there.
pub(super) fn into_container(server: Pid, prefix: &Path, store: &Path) -> io::Result<OwnedFd> {
    let theirs = File::open(format!("/proc/{server}/ns/mnt"))?;
    let ours = File::open("/proc/self/ns/mnt")?;
    let trees: Vec<(OwnedFd, &Path)> = [store, Path::new(BUILD_DIR)]
        .into_iter()
        .map(|path| Ok((clone_tree(AT_FDCWD, &c_path(path)?, Extent::Recursive)?, path)))
        .collect::<io::Result<_>>()?;
    setns(theirs, CloneFlags::CLONE_NEWNS)?;
    let attached = trees
        .iter()
        .try_for_each(|(tree, path)| {
            let inside = prefix.join(path.strip_prefix("/").unwrap_or(path));
            fs::create_dir_all(&inside)?;
            attach(tree.as_fd(), AT_FDCWD, &c_path(&inside)?)
        })
        .and_then(|()| {
            let flags = libc::O_PATH | libc::O_DIRECTORY;
            Ok(fs::OpenOptions::new().read(true).custom_flags(flags).open(prefix)?.into())
        });
    setns(ours, CloneFlags::CLONE_NEWNS)?;
    attached
}

fn c_path(path: &Path) -> io::Result<std::ffi::CString> {
    Ok(std::ffi::CString::new(path.as_os_str().as_bytes())?)
}
