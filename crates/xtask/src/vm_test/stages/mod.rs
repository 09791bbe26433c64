//! One file a stage, in the order in which they run.

pub mod agent;
pub mod boot;
pub mod build;
pub mod failures;
pub mod keys;
pub mod log;
pub mod package;
pub mod prefix;
pub mod recovery;
pub mod registration;
pub mod sshd;
pub mod store;
