//! From what a builder left behind to what a store may hold.
//!
//! [`publish()`] takes one output, refuses what must not get into a store, brings the rest into canonical form, and finds
//! its NAR hash, NAR size, references and fixed-output digest, all in one walk that reads the data once.
//!
//! What it relies on: every process that could have written to the output is dead. Where that can't be known (a
//! builder with network may have sent a writable descriptor elsewhere), [`Handling::CopyTo`] publishes a copy, and
//! what is hashed is the copy.
//!
//! Order: an entry is checked before anything of it is touched, then canonicalised, then read. A refusal therefore
//! leaves the entries before it changed; that does no harm, since a refused output is thrown away.
//!
//! Layers, each knowing only those below it:
//!
//! - [`nar`]: the walk that serialises; calls the two below for each entry.
//! - [`entry_checks`], [`canonical`]: what an entry may be, and what it becomes.
//! - [`hashing`]: where the NAR's bytes go: [`references`], digests, and a second thread when there is much of it.
//! - [`walk`]: descending into a tree by descriptors, to any depth.
//! - [`copy`], [`remove`], [`handover`], [`unprepared`]: the other things one does with trees, made from the same parts.
//! - [`interrupt`]: ending any of it early.

use std::os::fd::BorrowedFd;

use protocol::ByteString;
use thiserror::Error;

use crate::request::DigestRequest;
use crate::store_path::StoreName;

mod canonical;
mod copy;
mod entry_checks;
mod extended_attributes;
mod handover;
mod hashing;
mod holes;
mod interrupt;
mod nar;
mod references;
mod reflink;
mod remove;
mod renaming;
mod unprepared;
mod walk;

pub use copy::{CopyRules, Form, Odd, copy_tree};
pub use entry_checks::Links;
pub use handover::{Transfer, hand_over};
pub use interrupt::{Interrupt, Interrupted};
pub use nar::hash_and_scan;
pub use references::{Candidates, Scanner};
pub use remove::remove_tree;
pub use renaming::{rename_new, rename_new_at};
pub use unprepared::{HandedOver, hand_over_output};
pub use walk::TreeError;

/// One output that a builder left behind.
pub struct Leftover<'a> {
    /// The directory that holds it: the slot's store view, after everything in the slot is dead.
    pub parent: BorrowedFd<'a>,
    /// Its name in there.
    pub name: &'a StoreName,
    /// The uid that must own every entry.
    pub builder: u32,
    /// The uid and gid that it must end up with: whoever registers it.
    pub owner: (u32, u32),
    /// A digest wanted besides the NAR hash.
    pub digest: Option<DigestRequest>,
    /// How large it may be at most, as NAR, bytes.
    pub max_nar_bytes: Option<u64>,
    /// Whether it is published where it is.
    pub handling: Handling<'a>,
    /// When to end early.
    pub interrupt: &'a Interrupt,
}

/// Whether an output is published where it is.
pub enum Handling<'a> {
    /// Where it is, without copying. Only if nobody can write to it any more.
    InPlace,
    /// As a copy of the same name in another directory, where nothing of that name may exist yet. The original stays
    /// as it is; a failure removes the copy. Hard links become separate files.
    CopyTo {
        /// That directory.
        directory: BorrowedFd<'a>,
    },
}

/// What there is to know of a published output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// SHA-256 of its NAR serialisation.
    pub nar_sha256: [u8; 32],
    /// Length of its NAR serialisation, bytes.
    pub nar_size: u64,
    /// The candidates whose hash part occurs in its NAR serialisation, sorted.
    pub references: Vec<StoreName>,
    /// The digest that was asked for.
    pub digest: Option<ByteString>,
    /// How far below its top its deepest entry is: 0 for a file, 1 for what is directly in a directory.
    pub depth: u64,
}

/// Why an output can't be published.
#[derive(Debug, Error)]
pub enum PublishError {
    /// The builder did not make it.
    #[error("'{0}' does not exist")]
    Missing(String),
    /// Neither regular file, directory nor symlink.
    #[error("'{path}' is a {kind}; only regular files, directories and symlinks can be taken")]
    FileType {
        /// The entry.
        path: String,
        /// What it is, e.g. `fifo`.
        kind: &'static str,
    },
    /// An entry of someone else's, such as a hard link to a file outside of the output.
    #[error(
        "'{path}' belongs to uid {uid} instead of {expected}; is it a hard link to a file from elsewhere?"
    )]
    Ownership {
        /// The entry.
        path: String,
        /// Its owner.
        uid: u32,
        /// Who should own it.
        expected: u32,
    },
    /// A file that can be reached by other names as well.
    #[error("'{path}' has {names} names (hard links), and only a file with one can be lent")]
    Names {
        /// The entry.
        path: String,
        /// How many.
        names: u64,
    },
    /// The output itself is writable for others than its owner.
    #[error("'{path}' has mode {mode:04o}: group or others may write to it")]
    Writable {
        /// The entry.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// Another file system starts here.
    #[error("'{path}' is on another file system than the directory that the output is in")]
    OtherFileSystem {
        /// The entry.
        path: String,
    },
    /// Someone changed the tree while it was being read.
    #[error("'{path}' changed while it was being read")]
    Changed {
        /// The entry.
        path: String,
    },
    /// Larger than the limit.
    #[error("'{path}' is larger than {limit} bytes (as NAR), which is the limit")]
    TooLarge {
        /// The output.
        path: String,
        /// The limit, bytes.
        limit: u64,
    },
    /// A flat digest was asked for, of something that has none.
    #[error(
        "'{path}' must be a regular file that is not executable, since its hash is one of contents alone (outputHashMode = \"flat\")"
    )]
    NotFlat {
        /// The output.
        path: String,
    },
    /// The operating system refused something.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// It was to end early.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The second thread ended before its work was done.
    #[error("the thread that computes the NAR hash failed")]
    HashingThread,
}

impl PublishError {
    /// Whether the output is at fault, rather than this machine (a full disk, say).
    pub fn is_about_the_output(&self) -> bool {
        !matches!(self, Self::Tree(_) | Self::Interrupted(_) | Self::HashingThread)
    }
}

/// Checks, canonicalises, hashes and scans one output. Blocks for as long as reading it takes.
///
/// `links` is one for all outputs of a build: an output may hold hard links to files of another output.
/// Needs `CAP_CHOWN`, `CAP_FOWNER` and `CAP_DAC_OVERRIDE` unless the process is both builder and owner.
pub fn publish(
    leftover: &Leftover<'_>,
    candidates: &Candidates,
    links: &mut Links,
) -> Result<Published, PublishError> {
    match leftover.handling {
        Handling::InPlace => {
            nar::publish_in_place(leftover, leftover.parent, leftover.builder, candidates, links)
        }
        Handling::CopyTo { directory } => {
            let name = leftover.name.as_str().as_bytes();
            let rules = CopyRules {
                owned_by: Some(leftover.builder),
                max_bytes: leftover.max_nar_bytes,
                form: Form::Canonical,
                interrupt: leftover.interrupt.clone(),
            };
            copy_tree(leftover.parent, name, directory, name, &rules)?;
            // The copy is a build of its own as far as hard links go, and belongs to whoever made it: us.
            let published = nar::publish_in_place(
                leftover,
                directory,
                nix::unistd::geteuid().as_raw(),
                candidates,
                &mut Links::default(),
            );
            if published.is_err() {
                // The first error is the one to tell; a copy that can't be removed goes with the slot's directory.
                let _ = remove_tree(directory, name);
            }
            published
        }
    }
}

#[cfg(test)]
mod tests;
