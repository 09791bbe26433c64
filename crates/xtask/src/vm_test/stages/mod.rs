//! One file a stage, in the order in which they run.

pub mod boot;
pub mod keys;
pub mod prefix;
pub mod agent;
pub mod sshd;
pub mod registration;
pub mod store;
pub mod build;
pub mod log;
pub mod failures;
pub mod recovery;
pub mod package;
