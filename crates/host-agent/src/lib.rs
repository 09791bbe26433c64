//! `host-agent`: the Linux side of darling-builder.
//!
//! Layers, each knowing only those below it:
//!
//! - [`cli`]: one module a command.
//! - [`doctor`]: the one checker of all that follows.
//! - [`install`]: setting all of this up on a machine, and taking it away.
//! - [`nix`]: Nix semantics (hook protocol, derivations, environments, registration). Produces a
//!   [`request::BuildRequest`], consumes a [`request::BuildReport`].
//! - [`daemon`]: who may ask, what runs when, limits.
//! - [`publish`]: turns what a builder left behind into what a store may hold.
//! - [`guest`]: what runs inside a slot: Darling, or the stand-in.
//! - [`ssh`]: keys, and what `sshd` is told.
//! - [`slot`]: namespaces, the minimal root, the store view, uids, teardown.
//! - [`control`]: the words between front ends and daemon.

pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod doctor;
pub mod guest;
pub mod install;
pub mod mount;
pub mod nix;
pub mod pidfd;
pub mod plain_text;
pub mod publish;
pub mod request;
pub mod slot;
pub mod ssh;
pub mod store_path;
