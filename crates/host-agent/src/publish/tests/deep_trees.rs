//! Trees deeper than any path may be long, than the stack and than the table of descriptors.

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};

use super::*;

/// Several times what a path, a small stack or the table of descriptors has room for.
const DEPTH: usize = 20_000;

/// Makes a chain of directories without ever naming a long path.
fn make_deep(top: &Path, depth: usize) {
    let mut here: std::os::fd::OwnedFd = File::open(top).unwrap().into();
    for _ in 0..depth {
        mkdirat(&here, "d", Mode::from_bits_truncate(0o755)).unwrap();
        here = openat(&here, "d", OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        if nix::unistd::geteuid().is_root() {
            nix::unistd::fchown(&here, Some(BUILDER.into()), Some(BUILDER.into())).unwrap();
        }
    }
    let file = openat(&here, "file", OFlag::O_CREAT | OFlag::O_WRONLY, Mode::S_IRWXU).unwrap();
    if nix::unistd::geteuid().is_root() {
        nix::unistd::fchown(&file, Some(BUILDER.into()), Some(BUILDER.into())).unwrap();
    }
}

/// In a thread with a small stack: recursion would show.
fn with_small_stack(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        std::thread::Builder::new().stack_size(256 * 1024).spawn_scoped(scope, work).unwrap().join().unwrap();
    });
}

#[test]
fn are_published_copied_handed_over_and_removed() {
    if !is_root() {
        return;
    }
    with_small_stack(|| {
        // In memory if possible: a disk may take minutes for this many small changes.
        let mut build = match tempfile::tempdir_in("/dev/shm") {
            Ok(directory) => Build { directory, ..Build::new() },
            Err(_) => Build::new(),
        };
        let out = build.make_directory("out");
        lchown(&out, Some(BUILDER), None).unwrap();
        make_deep(&out, DEPTH);
        let directory = File::open(build.directory.path()).unwrap();
        let name = store_name("out");
        let name = name.as_str().as_bytes();
        let interrupt = Interrupt::default();
        let to_himself = Transfer { owner: (BUILDER, BUILDER), ..transfer(&interrupt) };
        hand_over(directory.as_fd(), name, to_himself).unwrap();
        copy_tree(directory.as_fd(), name, directory.as_fd(), b"copy", &CopyRules::default()).unwrap();
        let published = build.publish_as_it_is("out", |_| {}).unwrap();
        let copied = hash_and_scan(directory.as_fd(), b"copy", &build.candidates, None).unwrap();
        assert_eq!(copied, published);
        remove_tree(directory.as_fd(), name).unwrap();
        remove_tree(directory.as_fd(), b"copy").unwrap();
        assert_eq!(fs::read_dir(build.directory.path()).unwrap().count(), 0);
        assert_eq!(copied, published);
        assert_eq!(published.depth, DEPTH as u64 + 1);
        // The magic; 72 bytes for a directory and 96 around an entry with a short name; 120 for the file.
        assert_eq!(published.nar_size as usize, 24 + 72 + DEPTH * (96 + 72) + 96 + 120);
    });
}

#[test]
fn an_error_far_down_has_a_short_path() {
    if !is_root() {
        return;
    }
    let mut build = Build::new();
    let out = build.make_directory("out");
    lchown(&out, Some(BUILDER), None).unwrap();
    make_deep(&out, 5000);
    let parent = File::open(build.directory.path()).unwrap();
    let error =
        build.publish_as_it_is("out", |leftover| leftover.max_nar_bytes = Some(5000 * 168)).unwrap_err();
    assert!(error.to_string().len() < 300, "{error}");
    // Everything is removed by descriptors, since the directory's own removal could not get down there.
    remove_tree(parent.as_fd(), store_name("out").as_str().as_bytes()).unwrap();
}
