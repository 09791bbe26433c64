//! The module in many configurations, by real Nix, against a stand-in for nixpkgs.

mod evaluation;
mod files;
mod front_ends;
mod rendering;

use serde_json::Value;

use super::instantiate::Instantiate;
use super::options_page::EVALUATE;
use crate::nix_roots::{self, RELEASES};
use crate::workspace::Workspace;

/// Every Nix that is at hand: the machine's, and those of roots that `cargo xtask nix-roots` has made. Says which are not.
fn every_nix(workspace: &Workspace) -> Vec<Instantiate> {
    let roots = RELEASES.iter().map(|release| {
        let root = nix_roots::place(&workspace.target, *release);
        (format!("Nix {}", release.version), Instantiate::unpacked(&root))
    });
    let mut found: Vec<Instantiate> = Vec::new();
    for (name, nix) in std::iter::once(("nix-instantiate".into(), Instantiate::on_path())).chain(roots) {
        match nix {
            Ok(nix) if found.iter().any(|other| other.version == nix.version) => {}
            Ok(nix) => found.push(nix),
            Err(error) => println!("without {name}: {error:#}"),
        }
    }
    if found.is_empty() {
        println!("skipped: no Nix, neither on PATH nor below target/nix-roots (cargo xtask nix-roots)");
    }
    found
}

/// An attribute of `evaluate.nix`, which every Nix must make the same of; `None` where there is no Nix.
fn evaluated(attribute: &str) -> Option<Value> {
    let workspace = Workspace::find().unwrap();
    let file = workspace.project.join(EVALUATE);
    let mut results = every_nix(&workspace).into_iter().map(|nix| {
        (nix.evaluate(&file, attribute).unwrap_or_else(|e| panic!("Nix {}: {e:#}", nix.version)), nix)
    });
    let (first, by) = results.next()?;
    for (other, nix) in results {
        assert_eq!(first, other, "Nix {} and Nix {}", by.version, nix.version);
    }
    Some(first)
}
