//! Where the parts of an installation go, given the program that runs.
//!
//! A program that a package manager keeps (below `/usr/bin`, or in the Nix store) stays where it is, and what belongs to it
//! is there already; it is only referred to. Any other one, from an unpacked archive or a build, is copied below the prefix, with
//! its agents, manual and completions: an archive may be deleted afterwards.

use std::path::{Path, PathBuf};

use super::InstallError;
use super::files::Contents;
use crate::cli::HOOK_NAME;
use crate::config::GuestKind;
use crate::guest::{darling, linux};

/// Name of the program.
const PROGRAM: &str = "host-agent";

/// Below the prefix, and beside an unpacked `bin`.
const LIBEXEC: &str = "libexec/darling-builder";

/// Keeps a program in the store from being collected.
const GC_ROOT: &str = "/nix/var/nix/gcroots/darling-builder";

const STORE: &str = "/nix/store";

/// A file that is to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub contents: Contents,
    /// Whether another file may be there instead: the configuration is the user's.
    pub yields: bool,
}

impl Wish {
    /// A text that nobody else may have put there.
    pub fn text(path: impl Into<PathBuf>, text: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), contents: Contents::Text(text.into()), yields: false }
    }

    fn new(path: PathBuf, contents: Contents) -> Self {
        Self { path, contents, yields: false }
    }
}

/// Manual and completions, by their paths below the prefix.
pub type Pages = Vec<(PathBuf, Vec<u8>)>;

/// Where programs are to be.
#[derive(Debug)]
pub struct Layout {
    /// `host-agent`, as units and Nix name it.
    pub program: PathBuf,
    wishes: Vec<Wish>,
}

impl Layout {
    /// For the program that runs as `running`; `guest` must have its agent.
    pub fn new(running: &Path, prefix: &Path, guest: GuestKind, pages: &Pages) -> Result<Self, InstallError> {
        if running.starts_with(STORE) {
            return Self::in_store(running);
        }
        if running.parent() == Some(Path::new("/usr/bin")) && prefix != Path::new("/usr") {
            let hook = running.with_file_name(HOOK_NAME);
            return match hook.symlink_metadata() {
                Ok(_) => Ok(Self { program: running.into(), wishes: Vec::new() }),
                Err(_) => Err(InstallError::NoHook(hook)),
            };
        }
        Self::below(running, prefix, guest, pages)
    }

    fn in_store(running: &Path) -> Result<Self, InstallError> {
        let hook = running.with_file_name(HOOK_NAME);
        if hook.symlink_metadata().is_err() {
            return Err(InstallError::NoHook(hook));
        }
        let object: PathBuf = running.components().take(4).collect();
        let root = Wish::new(GC_ROOT.into(), Contents::Link(object));
        Ok(Self { program: running.into(), wishes: vec![root] })
    }

    fn below(running: &Path, prefix: &Path, guest: GuestKind, pages: &Pages) -> Result<Self, InstallError> {
        let bin = prefix.join("bin");
        let program = bin.join(PROGRAM);
        let mut wishes = vec![
            Wish::new(program.clone(), Contents::Program(running.into())),
            Wish::new(bin.join(HOOK_NAME), Contents::Link(PROGRAM.into())),
        ];
        for (kind, name) in [(GuestKind::Darling, darling::AGENT_NAME), (GuestKind::Linux, linux::AGENT_NAME)]
        {
            match agent(running, name) {
                Some(found) => {
                    wishes.push(Wish::new(prefix.join(LIBEXEC).join(name), Contents::Program(found)));
                }
                None if kind == guest => return Err(InstallError::NoAgent { name, running: running.into() }),
                None => {}
            }
        }
        wishes.extend(pages.iter().map(|(path, text)| Wish::text(prefix.join(path), text.clone())));
        Ok(Self { program, wishes })
    }

    /// The files that are to be there for it.
    pub fn into_wishes(self) -> Vec<Wish> {
        self.wishes
    }
}

/// Beside the program, or in `libexec` beside its directory.
fn agent(running: &Path, name: &str) -> Option<PathBuf> {
    let directory = running.parent()?;
    let beside = directory.join(name);
    let apart = directory.parent().map(|prefix| prefix.join(LIBEXEC).join(name));
    std::iter::once(beside).chain(apart).find(|path| path.is_file())
}
