//! Tests of the settings: what is printed for which Nix, and what putting them there does to files.

mod applying;
mod printing;

use std::path::{Path, PathBuf};

use super::proposal::{FrontEnd, Proposal, Wanted};

fn wanted() -> Wanted {
    Wanted {
        front_end: None,
        program: "/usr/local/bin/host-agent".into(),
        hook: "/usr/local/bin/darling-builder-hook".into(),
        config: None,
        systems: vec!["x86_64-darwin".into()],
    }
}

fn proposal(version: &str) -> Proposal {
    Proposal::new(version.parse().unwrap(), &wanted()).unwrap()
}

fn hook_for(version: &str) -> Proposal {
    let wanted = Wanted { front_end: Some(FrontEnd::BuildHook), ..wanted() };
    Proposal::new(version.parse().unwrap(), &wanted).unwrap()
}

/// A directory to be `/`, with some files.
fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = below(root.path(), path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    root
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}
