//! The .nix files themselves, and the page that is made of them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::every_nix;
use crate::nixos::options_page::{PAGE, render};
use crate::workspace::Workspace;

/// Every .nix file of the repository.
fn nix_files(project: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![project.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = entry.file_name();
            if entry.file_type().unwrap().is_dir() {
                if name != "target" && name != ".git" {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "nix") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 20);
    files
}

#[test]
fn every_version_of_nix_understands_every_file() {
    let workspace = Workspace::find().unwrap();
    for nix in every_nix(&workspace) {
        for file in nix_files(&workspace.project) {
            let output = nix.run([OsStr::new("--parse"), file.as_os_str()]).unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "Nix {}, {}: {said}", nix.version, file.display());
        }
    }
}

#[test]
fn every_file_of_the_module_is_formatted() {
    let workspace = Workspace::find().unwrap();
    for file in nix_files(&workspace.project) {
        // Those of fixtures are made to be read as they are.
        if file.starts_with(workspace.project.join("fixtures")) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(nixfmt_rs::format(&text).unwrap(), text, "{}: run nixfmt", file.display());
    }
}

#[test]
fn the_page_of_options_is_current() {
    let workspace = Workspace::find().unwrap();
    let page = fs::read_to_string(workspace.project.join(PAGE)).unwrap();
    for nix in every_nix(&workspace) {
        let current = render(&workspace, &nix).unwrap();
        assert_eq!(current, page, "run `cargo xtask nixos-options`");
    }
}
