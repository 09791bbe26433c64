//! What is true of ssh: settings, keys, what `sshd` is told.
//!
//! Knows neither the daemon, which listens, nor the guest, in which `sshd` runs.

pub mod keys;
pub mod login;
pub mod settings;
