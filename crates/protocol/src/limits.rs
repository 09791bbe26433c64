//! Sizes that bound what one side may make the other allocate.

/// Largest payload of one frame, in bytes. Checked before anything is allocated for it.
pub const FRAME_MAX: usize = 1 << 20;

/// Largest piece of output in one [`Output`](crate::message::FromAgent::Output) message, in bytes.
pub const CHUNK_MAX: usize = 64 << 10;

/// Most bytes of arguments and environment together that an agent accepts for one process. Linux itself refuses more
/// than 6 MiB (a quarter of the stack, capped), so anything above can't start anyway.
pub const PROCESS_STRINGS_MAX: usize = 8 << 20;

/// Most bytes under way on the tick connection; the agent has a thread for each.
pub const TICKS_UNDER_WAY: usize = 4;

/// Longest name that a program gives itself in its greeting, in bytes: program, version, system.
pub const IDENTITY_MAX: usize = 256;
