//! Memory that belongs to no process: System V shared memory stays when whoever made it is gone, and nothing but its namespace
//! limits it.

use std::fs;
use std::io;
use std::path::Path;

/// proc_sys_kernel(5), pages of all segments together. Means the ipc namespace of whoever opens it.
const ALL_PAGES: &str = "sys/kernel/shmall";

/// Bytes in a page.
const PAGE: u64 = 4096;

/// Limits what this process's ipc namespace may hold, bytes. `proc` is where a procfs is mounted.
pub(crate) fn limit(proc: &Path, bytes: u64) -> io::Result<()> {
    fs::write(proc.join(ALL_PAGES), (bytes / PAGE).to_string())
}
