//! System V's shared memory, semaphores and message queues belong to no process: they stay when whoever made them is gone, and
//! nothing but their namespace limits them.

use std::fs;
use std::io;
use std::path::Path;

/// proc_sys_kernel(5), pages of all segments together. Like the others it means the ipc namespace of whoever opens it.
const ALL_PAGES: &str = "sys/kernel/shmall";

/// Semaphores of a set and of all sets, operations of a call, sets.
const SEMAPHORES: &str = "sys/kernel/sem";

/// Message queues; the kernel holds a megabyte for each, if it is full of empty messages.
const QUEUES: &str = "sys/kernel/msgmni";

/// Bytes in a page.
const PAGE: u64 = 4096;

/// Linux's own limits, but together no more semaphores than macOS has (kern.sysv.semmns); Linux would have a thousand million.
const SEMAPHORE_LIMITS: &str = "32000 87381 500 32000";

/// As many as macOS has (kern.sysv.msgmni).
const QUEUE_LIMIT: &str = "40";

/// Limits what this process's ipc namespace may hold, shared memory in bytes. `proc` is where a procfs is mounted.
pub(crate) fn limit(proc: &Path, shared_bytes: u64) -> io::Result<()> {
    fs::write(proc.join(ALL_PAGES), (shared_bytes / PAGE).to_string())?;
    fs::write(proc.join(SEMAPHORES), SEMAPHORE_LIMITS)?;
    fs::write(proc.join(QUEUES), QUEUE_LIMIT)
}
