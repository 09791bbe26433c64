//! Moving outputs into the store, also across mounts: those tests make a mount namespace of their own.

use super::*;
use std::fs::Permissions;
use std::process::Command;

fn tree(at: &Path) {
    fs::create_dir(at).unwrap();
    fs::write(at.join("file"), "contents").unwrap();
    fs::set_permissions(at.join("file"), Permissions::from_mode(0o555)).unwrap();
    std::os::unix::fs::symlink("file", at.join("link")).unwrap();
    fs::create_dir(at.join("empty")).unwrap();
    for directory in [at.join("empty"), at.to_owned()] {
        fs::set_permissions(directory, Permissions::from_mode(0o555)).unwrap();
    }
}

fn remove(at: &Path) -> Result<(), publish::TreeError> {
    let parent = File::open(at.parent().unwrap()).unwrap();
    publish::remove_tree(parent.as_fd(), at.file_name().unwrap().as_bytes())
}

fn check(at: &Path) {
    assert_eq!(fs::read_to_string(at.join("link")).unwrap(), "contents");
    assert_eq!(fs::metadata(at.join("file")).unwrap().mode() & 0o7777, 0o555);
    assert_eq!(fs::metadata(at.join("empty")).unwrap().mode() & 0o7777, 0o555);
    assert_eq!(fs::metadata(at).unwrap().mode() & 0o7777, 0o555);
}

#[test]
fn moves_within_one_file_system() {
    let place = tempfile::tempdir().unwrap();
    let (staged, target) = (place.path().join("staged"), place.path().join("target"));
    tree(&staged);
    assert_eq!(take(&staged, &target).unwrap(), Way::Renamed);
    check(&target);
    assert!(!staged.exists());
    remove(&target).unwrap();
}

#[test]
fn never_replaces_what_is_there() {
    let place = tempfile::tempdir().unwrap();
    let (staged, target) = (place.path().join("staged"), place.path().join("target"));
    tree(&staged);
    fs::create_dir(&target).unwrap();
    assert!(matches!(take(&staged, &target), Err(TakeError::Exists(_))));
    check(&staged);
    remove(&staged).unwrap();
}

#[test]
fn a_copy_is_in_canonical_form() {
    let place = tempfile::tempdir().unwrap();
    let (staged, target) = (place.path().join("staged"), place.path().join("target"));
    tree(&staged);
    assert_eq!(copy(&staged, &target).unwrap(), Way::Copied);
    check(&target);
    for path in [target.clone(), target.join("file"), target.join("link"), target.join("empty")] {
        assert_eq!(fs::symlink_metadata(path).unwrap().mtime(), 1);
    }
    remove(&staged).unwrap();
    remove(&target).unwrap();
}

/// Runs this test again in a mount namespace of its own, which NixOS's layout needs; false if that can't be had here.
fn alone_in_mount_namespace(test: &str) -> bool {
    if std::env::var_os("IN_MOUNT_NAMESPACE").is_some() {
        return true;
    }
    let test = format!("nix::take::tests::{test}");
    let arguments = ["--exact", &test, "--nocapture"];
    let status = Command::new("unshare")
        .args(["--mount", "--map-root-user", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(arguments)
        .env("IN_MOUNT_NAMESPACE", "1")
        .output();
    match status {
        Ok(output) if output.status.success() => {}
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("unshare failed") => {
            eprintln!("no mount namespaces here: not tested");
        }
        result => panic!("{result:?}"),
    }
    false
}

fn bind(from: &Path, to: &Path) {
    let flags = ::nix::mount::MsFlags::MS_BIND;
    ::nix::mount::mount(Some(from), to, None::<&str>, flags, None::<&str>).unwrap();
}

#[test]
fn moves_across_a_bind_mount_of_the_store() {
    if !alone_in_mount_namespace("moves_across_a_bind_mount_of_the_store") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (store, staging) = (place.path().join("store"), place.path().join("var/staging"));
    fs::create_dir_all(&store).unwrap();
    fs::create_dir_all(&staging).unwrap();
    bind(&store, &store);
    tree(&staging.join("x"));
    let inode = fs::metadata(staging.join("x/file")).unwrap().ino();
    assert_eq!(take(&staging.join("x"), &store.join("x")).unwrap(), Way::RenamedInMount);
    check(&store.join("x"));
    assert_eq!(fs::metadata(store.join("x/file")).unwrap().ino(), inode);
    ::nix::mount::umount(&store).unwrap();
    remove(&store.join("x")).unwrap();
}

#[test]
fn copies_to_a_store_on_another_file_system() {
    if !alone_in_mount_namespace("copies_to_a_store_on_another_file_system") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (store, staging) = (place.path().join("store"), place.path().join("var/staging"));
    fs::create_dir_all(&store).unwrap();
    fs::create_dir_all(&staging).unwrap();
    let flags = ::nix::mount::MsFlags::empty();
    ::nix::mount::mount(Some("tmpfs"), &store, Some("tmpfs"), flags, None::<&str>).unwrap();
    tree(&staging.join("x"));
    assert_eq!(take(&staging.join("x"), &store.join("x")).unwrap(), Way::Copied);
    check(&store.join("x"));
    ::nix::mount::umount(&store).unwrap();
    remove(&staging.join("x")).unwrap();
}
