//! Building again what is built already, and comparing: does this builder make what the store has?
//!
//! Nix builds, to paths of its own (`nix-store --realise --check`), and compares hashes; it keeps the second result beside
//! the first, as `….check`. What differs is looked at here.
//!
//! - [`installable`]: from what the user names to derivations.
//! - [`rebuild`]: Nix's part, and what its end means.
//! - [`tree_difference`]: two trees, entry by entry.
//! - [`known`]: what is known to differ, with reasons.
//! - [`verdict`], [`report`]: what came of it, and how it is told.

pub mod diffoscope;
pub mod installable;
pub mod known;
pub mod rebuild;
pub mod report;
pub mod tree_difference;
pub mod verdict;
