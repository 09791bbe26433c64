//! `cargo xtask bench`: figures, each beside what it is to be compared with, in one run.

pub mod darling;
pub mod hash;
pub mod overhead;
mod remote;
mod samples;
mod trivial;
