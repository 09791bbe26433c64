//! The settings that make a Nix use this builder: which, where, and putting them there.
//!
//! - [`version`]: what a version of Nix can, and where it reads the setting from.
//! - [`discover`]: the Nix of this machine.
//! - [`proposal`], [`text`]: the settings for it, and how they are shown.
//! - [`settings_files`]: what the user has set.
//! - [`tree`], [`marked`], [`install`]: changing configuration files, and changing them back.
//!
//! What is written can be taken away again to the byte: one file of our own, and marked lines at the end of a file of
//! the user's that include it.

pub mod discover;
pub mod install;
pub mod marked;
pub mod proposal;
pub mod settings_files;
pub mod text;
pub mod tree;
pub mod version;

#[cfg(test)]
mod tests;
