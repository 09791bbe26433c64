//! The kernel's newer mount calls, which neither libc nor the nix crate wraps: a mount as a descriptor.
//!
//! A detached mount (`open_tree` with `OPEN_TREE_CLONE`) belongs to nobody's path names; it can be renamed within, or be
//! moved into any mount namespace that this process enters. Linux 5.2; [`set_attributes`] 5.12.

#![expect(unsafe_code, reason = "raw system calls without a safe wrapper")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Whether a clone takes the mounts below along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Only the mount that the path is on, from the path downwards.
    This,
    /// Everything mounted below as well.
    Recursive,
}

/// A detached copy of what is mounted at `path` (open_tree(2) with `OPEN_TREE_CLONE`). An empty path means `directory`
/// itself. Symbolic links at the end of the path are not followed.
pub fn clone_tree(directory: BorrowedFd<'_>, path: &CStr, extent: Extent) -> io::Result<OwnedFd> {
    let recursive = if extent == Extent::Recursive { libc::AT_RECURSIVE as libc::c_uint } else { 0 };
    let flags = libc::OPEN_TREE_CLONE
        | libc::OPEN_TREE_CLOEXEC
        | libc::AT_EMPTY_PATH as libc::c_uint
        | libc::AT_SYMLINK_NOFOLLOW as libc::c_uint
        | recursive;
    // SAFETY: the descriptor and the string outlive the call, which writes to no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, directory.as_raw_fd(), path.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches a detached mount at `path` below `directory` (move_mount(2)).
pub fn attach(tree: impl AsFd, directory: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    let to_empty = if path.is_empty() { libc::MOVE_MOUNT_T_EMPTY_PATH } else { 0 };
    // SAFETY: descriptors and strings outlive the call, which writes to no memory of ours.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            directory.as_raw_fd(),
            path.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH | to_empty,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What a mount forbids, and how it propagates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Nothing below can be written.
    pub read_only: bool,
    /// Set-user-id bits have no effect.
    pub no_suid: bool,
    /// Device files can't be opened.
    pub no_dev: bool,
    /// `MS_SHARED` or `MS_PRIVATE`; 0 leaves propagation alone.
    pub propagation: u64,
}

/// Sets attributes of the mount that `tree` is the root of (mount_setattr(2)).
pub fn set_attributes(tree: impl AsFd, attributes: Attributes, extent: Extent) -> io::Result<()> {
    let bit = |on: bool, flag: u64| if on { flag } else { 0 };
    let attr = libc::mount_attr {
        attr_set: bit(attributes.read_only, libc::MOUNT_ATTR_RDONLY)
            | bit(attributes.no_suid, libc::MOUNT_ATTR_NOSUID)
            | bit(attributes.no_dev, libc::MOUNT_ATTR_NODEV),
        attr_clr: 0,
        propagation: attributes.propagation,
        userns_fd: 0,
    };
    let recursive = if extent == Extent::Recursive { libc::AT_RECURSIVE as libc::c_uint } else { 0 };
    // SAFETY: `attr` is a valid mount_attr of the size given and outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH as libc::c_uint | recursive,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
