//! What a slot keeps from a hostile builder, and from whoever helps it outside: a test for each promise, which fails when what keeps it is
//! taken away. The attacks are made by `examples/attacker`.
//!
//! With the stand-in, and inside Darling where `DARLING_BUILDER_TEST_AGENT` names its agent. Needs root; reported as skipped without.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../daemon/harness.rs"]
#[allow(dead_code)]
mod harness;

mod agent;
mod attack;
mod channels;
mod first_process;
mod inputs;
mod keys;
mod leftovers;
mod liars;
mod limits;
mod machine;
mod refused_calls;
mod set_id;
mod sockets;
mod uids;
