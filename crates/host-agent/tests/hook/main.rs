//! The build hook as Nix runs it, between a Nix and a daemon that these tests play.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod accepted;
mod chained;
mod harness;
mod questions;
