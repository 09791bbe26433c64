//! Work that has to end early, and files that are large only in name.

use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::*;

/// Nearly as much as a file of ext4's may have. Hashing it takes hours.
const HUGE: u64 = 15 << 40;

/// How soon work ends, with a wide margin for a busy machine.
const SOON: Duration = Duration::from_secs(2);

fn sparse(path: &Path, size: u64) -> File {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    file
}

#[track_caller]
fn interrupted<T: std::fmt::Debug>(result: Result<T, PublishError>) -> Interrupted {
    let PublishError::Interrupted(interrupted) = result.unwrap_err() else { panic!("not interrupted") };
    interrupted
}

#[test]
fn a_huge_sparse_output_is_let_go_of_when_it_is_cancelled_and_when_its_time_is_over() {
    if !is_root() {
        return;
    }
    let mut build = Build::new();
    sparse(&build.path("out"), HUGE);
    let cancel = build.interrupt.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        cancel.cancel();
        Instant::now()
    });
    assert_eq!(interrupted(build.publish("out")), Interrupted::Cancelled);
    assert!(thread.join().unwrap().elapsed() < SOON);

    let deadline = Instant::now() + Duration::from_millis(200);
    build.interrupt = Interrupt::at(Some(deadline));
    give_to_builder(&build.path("out"));
    lchown(build.path("out"), Some(BUILDER), Some(BUILDER)).unwrap();
    let result = build.publish_as_it_is("out", |_| {});
    assert_eq!(interrupted(result), Interrupted::TimedOut);
    assert!(deadline.elapsed() < SOON);
}

#[test]
fn everything_that_walks_a_tree_looks_whether_to_go_on() {
    if !is_root() {
        return;
    }
    let mut build = Build::new();
    let out = build.make_directory("out");
    write(out.join("file"), "x");
    give_to_builder(&out);
    let name = store_name("out");
    let name = name.as_str().as_bytes();
    let parent = File::open(build.directory.path()).unwrap();
    let target = tempfile::tempdir().unwrap();
    let directory = File::open(target.path()).unwrap();
    build.interrupt.cancel();
    let before = [facts(&out), facts(&out.join("file"))];
    let copying = Handling::CopyTo { directory: directory.as_fd() };
    assert_eq!(interrupted(build.publish_as_it_is("out", |_| {})), Interrupted::Cancelled);
    assert_eq!(interrupted(build.publish_handled("out", copying, |_| {})), Interrupted::Cancelled);
    let change = transfer(&build.interrupt);
    assert_eq!(interrupted(hand_over(parent.as_fd(), name, change)), Interrupted::Cancelled);
    let mut seen = HandedOver::default();
    let handed = hand_over_output(parent.as_fd(), name, change, None, &mut seen);
    assert_eq!(interrupted(handed), Interrupted::Cancelled);
    assert_eq!([facts(&out), facts(&out.join("file"))], before);
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);
}

#[test]
fn a_copy_of_a_large_file_ends_early_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = sparse(&directory.path().join("file"), 1 << 30);
    // Many parts, each of which is a chance to stop.
    for part in 0..64 {
        file.write_all_at(b"data", part << 24).unwrap();
    }
    let parent = File::open(directory.path()).unwrap();
    let rules = CopyRules { interrupt: Interrupt::at(Some(Instant::now())), ..CopyRules::default() };
    let copied = copy_tree(parent.as_fd(), b"file", parent.as_fd(), b"copy", &rules);
    assert_eq!(interrupted(copied), Interrupted::TimedOut);
    assert!(!directory.path().join("copy").exists());
}

/// Bytes that this thread has read so far (proc(5), `/proc/<pid>/io`).
fn bytes_read() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/io").unwrap();
    text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

#[test]
fn holes_are_hashed_as_zeros_without_being_read() {
    const MIB: usize = 1 << 20;
    let directory = tempfile::tempdir().unwrap();
    let (sparse_path, dense_path) = (directory.path().join("sparse"), directory.path().join("dense"));
    let mut contents = vec![0; 64 * MIB + 12345];
    let file = sparse(&sparse_path, contents.len() as u64);
    for (at, length) in [(0, 5000), (9 * MIB + 17, 300_000), (63 * MIB, 4096), (64 * MIB + 12344, 1)] {
        let data: Vec<u8> = (0..length).map(|n| (n % 251) as u8 + 1).collect();
        file.write_all_at(&data, at as u64).unwrap();
        contents[at..at + length].copy_from_slice(&data);
    }
    write(&dense_path, &contents);
    let parent = File::open(directory.path()).unwrap();
    let hashed = |name: &[u8]| hash_and_scan(parent.as_fd(), name, &Candidates::new([]), None).unwrap();
    let before = bytes_read();
    let through_holes = hashed(b"sparse");
    let read = bytes_read() - before;
    assert_eq!(through_holes, hashed(b"dense"));
    assert!(read < 8 * MIB as u64, "{read} bytes were read");
}

#[test]
fn references_at_the_edges_of_a_hole_are_found_and_none_is_made_up_across_it() {
    const AFTER: u64 = 4 << 20;
    let hash = "0123456789abcdfghijklmnpqrsvwxyz";
    let name = |part: &str| StoreName::parse(format!("{part}-x").as_bytes()).unwrap();
    let other = hash.chars().rev().collect::<String>();
    let directory = tempfile::tempdir().unwrap();
    let parent = File::open(directory.path()).unwrap();
    let scanned = |before: &str, after: &str| {
        let file = sparse(&directory.path().join("file"), 8 << 20);
        file.write_all_at(before.as_bytes(), 8192 - before.len() as u64).unwrap();
        file.write_all_at(after.as_bytes(), AFTER).unwrap();
        let candidates = Candidates::new([name(hash), name(&other)]);
        hash_and_scan(parent.as_fd(), b"file", &candidates, None).unwrap().references
    };
    let mut both = vec![name(hash), name(&other)];
    both.sort();
    assert_eq!(scanned(hash, &other), both);
    assert!(scanned(&hash[..16], &hash[16..]).is_empty());
}

#[test]
fn the_depth_of_the_deepest_entry_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let parent = File::open(directory.path()).unwrap();
    let depth = |name: &str| {
        hash_and_scan(parent.as_fd(), name.as_bytes(), &Candidates::new([]), None).unwrap().depth
    };
    write(directory.path().join("file"), "");
    fs::create_dir_all(directory.path().join("tree/a/b")).unwrap();
    write(directory.path().join("tree/z"), "");
    fs::create_dir(directory.path().join("empty")).unwrap();
    assert_eq!([depth("file"), depth("empty"), depth("tree")], [0, 0, 2]);
    write(directory.path().join("tree/a/b/c"), "");
    assert_eq!(depth("tree"), 3);
}
