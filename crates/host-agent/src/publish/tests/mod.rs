//! Behaviour of publishing as a whole, on real trees. What needs root says so and is skipped without it.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::request::{DigestAlgorithm, DigestMethod};

mod canonical_form;
mod copies;
mod deep_trees;
mod handing_over;
mod hard_links;
mod interruption;
mod nar_agreement;
mod refusals;
mod removal;

/// A uid that nobody has.
const BUILDER: u32 = 1_999_999_999;

/// Whom published outputs belong to in these tests: not root, so that it is seen to be set.
const OWNER: (u32, u32) = (1_999_999_998, 1_999_999_997);

/// From the builder to the owner.
fn transfer(interrupt: &Interrupt) -> Transfer<'_> {
    Transfer { builder: BUILDER, owner: OWNER, interrupt }
}

/// Says why a test is skipped.
fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root to change owners");
    }
    root
}

fn store_name(name: &str) -> StoreName {
    StoreName::parse(format!("0123456789abcdfghijklmnpqrsvwxyz-{name}").as_bytes()).unwrap()
}

/// A directory with outputs in it, and what is shared by the outputs of a build.
struct Build {
    directory: TempDir,
    candidates: Candidates,
    links: Links,
    interrupt: Interrupt,
}

impl Build {
    fn new() -> Self {
        Self::referring_to([])
    }

    fn referring_to(names: impl IntoIterator<Item = StoreName>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            directory,
            candidates: Candidates::new(names),
            links: Links::default(),
            interrupt: Interrupt::default(),
        }
    }

    fn path(&self, output: &str) -> PathBuf {
        self.directory.path().join(store_name(output).as_str())
    }

    /// An output that is a directory, with mode 0755 whatever the umask.
    fn make_directory(&self, output: &str) -> PathBuf {
        let path = self.path(output);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Everything in there becomes the builder's, then the output is published.
    fn publish(&mut self, output: &str) -> Result<Published, PublishError> {
        give_to_builder(&self.path(output));
        self.publish_as_it_is(output, |_| {})
    }

    fn publish_as_it_is(
        &mut self,
        output: &str,
        adjust: impl FnOnce(&mut Leftover<'_>),
    ) -> Result<Published, PublishError> {
        self.publish_handled(output, Handling::InPlace, adjust)
    }

    fn publish_handled(
        &mut self,
        output: &str,
        handling: Handling<'_>,
        adjust: impl FnOnce(&mut Leftover<'_>),
    ) -> Result<Published, PublishError> {
        let parent = File::open(self.directory.path()).unwrap();
        let name = store_name(output);
        let mut leftover = Leftover {
            parent: parent.as_fd(),
            name: &name,
            builder: BUILDER,
            owner: OWNER,
            digest: None,
            max_nar_bytes: None,
            handling,
            interrupt: &self.interrupt,
        };
        adjust(&mut leftover);
        publish(&leftover, &self.candidates, &mut self.links)
    }
}

/// Changes the owner of everything that is root's.
fn give_to_builder(path: &Path) {
    let Ok(metadata) = path.symlink_metadata() else { return };
    if metadata.uid() == 0 {
        // Changing the owner takes setuid bits away.
        lchown(path, Some(BUILDER), Some(BUILDER)).unwrap();
        if !metadata.is_symlink() {
            fs::set_permissions(path, metadata.permissions()).unwrap();
        }
    }
    if metadata.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| give_to_builder(&entry.unwrap().path()));
    }
}

/// What one looks at to see whether an entry was touched.
fn facts(path: &Path) -> (u32, u32, u32, i64, u64) {
    let metadata = path.symlink_metadata().unwrap();
    (metadata.mode(), metadata.uid(), metadata.gid(), metadata.mtime(), metadata.ctime_nsec() as u64)
}

fn write(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) {
    fs::write(path, contents).unwrap();
}

fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
