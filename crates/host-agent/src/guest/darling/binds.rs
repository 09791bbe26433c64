//! Shows the store view and the build directory inside Darling under their own names.
//!
//! Bind mounts in the container's mount namespace, not links to `/Volumes/SystemRoot`: those would show in `pwd -P` and so
//! in what builds record. The view's mount is shared, so inputs that are mounted there later appear inside as well.
//!
//! What the container made of its own is bounded on this occasion as the slot is: no set-uid file has effect on any of its mounts,
//! and its shared memory, of either kind, has a limit.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::AT_FDCWD;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;

use crate::mount::{Attributes, Extent, attach, clone_tree, set_attributes};
use crate::request::BUILD_DIR;
use crate::slot::root::shm_options;
use crate::slot::system_v;

const NONE: Option<&Path> = None;

/// A tmpfs that the prefix's server mounts, with these flags (darlingserver.cpp).
const SHARED_MEMORY: &str = "/dev/shm";
const SHARED_MEMORY_FLAGS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC).union(MsFlags::MS_NODEV);

/// Binds `store` and `/build` below the prefix, in the mount namespace of the prefix's server. This process must have one
/// thread only, and is back in its own namespaces afterwards. Returns the prefix as it is in there.
pub(super) fn into_container(
    server: Pid,
    prefix: &Path,
    store: &Path,
    shared_bytes: u64,
) -> io::Result<OwnedFd> {
    within(server, "ipc", CloneFlags::CLONE_NEWIPC, || system_v::limit(Path::new("/proc"), shared_bytes))?;
    let trees: Vec<(OwnedFd, &Path)> = [store, Path::new(BUILD_DIR)]
        .into_iter()
        .map(|path| Ok((clone_tree(AT_FDCWD, &c_path(path)?, Extent::Recursive)?, path)))
        .collect::<io::Result<_>>()?;
    within(server, "mnt", CloneFlags::CLONE_NEWNS, || {
        for (tree, path) in &trees {
            let inside = prefix.join(path.strip_prefix("/").unwrap_or(path));
            fs::create_dir_all(&inside)?;
            attach(tree.as_fd(), AT_FDCWD, &c_path(&inside)?)?;
        }
        mount(
            NONE,
            SHARED_MEMORY,
            NONE,
            MsFlags::MS_REMOUNT | SHARED_MEMORY_FLAGS,
            Some(shm_options().as_str()),
        )?;
        let root = directory(Path::new("/"))?;
        set_attributes(&root, Attributes { no_suid: true, ..Attributes::default() }, Extent::Recursive)?;
        directory(prefix)
    })
}

/// Does something in a namespace of that process's.
fn within<T>(
    process: Pid,
    kind: &str,
    flag: CloneFlags,
    work: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let theirs = File::open(format!("/proc/{process}/ns/{kind}"))?;
    let ours = File::open(format!("/proc/self/ns/{kind}"))?;
    setns(theirs, flag)?;
    let done = work();
    setns(ours, flag)?;
    done
}

fn directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    Ok(fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?.into())
}

fn c_path(path: &Path) -> io::Result<std::ffi::CString> {
    Ok(std::ffi::CString::new(path.as_os_str().as_bytes())?)
}
