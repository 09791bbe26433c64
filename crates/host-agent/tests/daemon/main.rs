//! The real daemon with the stand-in guest, asked by the real client. Needs root (namespaces, mounts) and the agent beside
//! `host-agent`; reported as skipped without.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bad_input;
mod darling;
mod darling_endurance;
mod doctor;
mod ending;
mod external;
mod harness;
mod hermetic;
mod kept;
mod lent;
mod limits;
mod results;
mod shell;
mod ssh;
mod ssh_limits;
mod ssh_repairs;
mod stuck;
mod terminal;
