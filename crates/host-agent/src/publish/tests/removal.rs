//! Removing trees.

use std::os::unix::fs::symlink;

use super::*;

#[test]
fn removes_closed_directories_and_leaves_what_symlinks_point_to() {
    let directory = tempfile::tempdir().unwrap();
    let outside = directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    write(outside.join("file"), "x");
    let top = directory.path().join("top");
    fs::create_dir_all(top.join("a/b")).unwrap();
    write(top.join("a/b/file"), "x");
    symlink(&outside, top.join("a/link")).unwrap();
    nix::unistd::mkfifo(&top.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for closed in ["a/b", "a", ""] {
        fs::set_permissions(top.join(closed), Permissions::from_mode(0o000)).unwrap();
    }
    let parent = File::open(directory.path()).unwrap();
    remove_tree(parent.as_fd(), b"top").unwrap();
    assert!(!top.exists());
    assert!(outside.join("file").exists());
}

#[test]
fn removes_single_files_and_does_not_mind_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let parent = File::open(directory.path()).unwrap();
    write(directory.path().join("file"), "x");
    symlink("nowhere", directory.path().join("link")).unwrap();
    for name in [&b"file"[..], b"link", b"nothing"] {
        remove_tree(parent.as_fd(), name).unwrap();
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// What an unprivileged front end sees after a failed copy: directories that it owns and may not write to.
#[test]
fn removes_read_only_directories_without_privileges() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().join("top");
    fs::create_dir_all(top.join("a/b")).unwrap();
    write(top.join("a/file"), "x");
    for (path, mode) in [("a/b", 0o000), ("a", 0o555), ("", 0o555)] {
        fs::set_permissions(top.join(path), Permissions::from_mode(mode)).unwrap();
    }
    give_to_builder(directory.path());
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let parent = File::open(directory.path()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Of this thread only: the file system's idea of who it is, and with it the capabilities for files.
            nix::unistd::setfsuid(BUILDER.into());
            assert!(fs::read_dir("/root").is_err());
            remove_tree(parent.as_fd(), b"top").unwrap();
        });
    });
    assert!(!top.exists());
}

#[test]
fn goes_on_after_what_it_can_not_remove_and_names_it() {
    if !is_root() {
        return;
    }
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().join("top");
    fs::create_dir(&top).unwrap();
    for name in ["a", "m", "z"] {
        write(top.join(name), "x");
    }
    if let Err(errno) = mount(Some("/dev/null"), &top.join("m"), None::<&str>, MsFlags::MS_BIND, None::<&str>)
    {
        eprintln!("skipped: can't mount: {errno}");
        return;
    }
    let parent = File::open(directory.path()).unwrap();
    let result = remove_tree(parent.as_fd(), b"top");
    umount2(&top.join("m"), MntFlags::MNT_DETACH).unwrap();
    assert_eq!(
        result.unwrap_err().to_string(),
        "can't remove 'top/m': Device or resource busy (os error 16)"
    );
    assert_eq!(fs::read_dir(&top).unwrap().count(), 1);
}
