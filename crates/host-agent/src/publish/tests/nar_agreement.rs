//! Hash and size agree with the `nix-nar` crate and with Nix's own `nix-store --dump`.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::process::Command;

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

fn hashed(path: &Path) -> Published {
    let parent = File::open(path.parent().unwrap()).unwrap();
    let name = path.file_name().unwrap().as_bytes();
    hash_and_scan(parent.as_fd(), name, &Candidates::new([]), None).unwrap()
}

fn by_nix_nar(path: &Path) -> ([u8; 32], u64) {
    let mut nar = Vec::new();
    nix_nar::Encoder::new(path).unwrap().read_to_end(&mut nar).unwrap();
    (Sha256::digest(&nar).into(), nar.len() as u64)
}

fn by_nix_store(path: &Path) -> Option<([u8; 32], u64)> {
    match Command::new("nix-store").arg("--dump").arg(path).output() {
        Ok(output) if output.status.success() => {
            Some((Sha256::digest(&output.stdout).into(), output.stdout.len() as u64))
        }
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            eprintln!("not compared with nix-store: {error}");
            None
        }
    }
}

#[track_caller]
fn agrees(path: &Path) {
    let ours = hashed(path);
    let ours = (ours.nar_sha256, ours.nar_size);
    assert_eq!(ours, by_nix_nar(path), "with nix-nar");
    agrees_with_nix_store(path, ours);
}

#[track_caller]
fn agrees_with_nix_store(path: &Path, ours: ([u8; 32], u64)) {
    if let Some(theirs) = by_nix_store(path) {
        assert_eq!(ours, theirs, "with nix-store");
    }
}

#[test]
fn single_files() {
    let directory = tempfile::tempdir().unwrap();
    for size in [0, 1, 7, 8, 9, 4096, 300_000] {
        let path = directory.path().join(format!("file-{size}"));
        write(&path, vec![b'x'; size]);
        agrees(&path);
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        agrees(&path);
    }
}

#[test]
fn only_the_owner_makes_a_file_executable() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    write(&path, "x");
    let mut hashes = [0o644, 0o655, 0o744, 0o4755].map(|mode| {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let ours = hashed(&path);
        agrees_with_nix_store(&path, (ours.nar_sha256, ours.nar_size));
        ours.nar_sha256
    });
    assert_eq!(hashes[0], hashes[1]);
    assert_eq!(hashes[2], hashes[3]);
    hashes.sort_unstable();
    assert_ne!(hashes[0], hashes[3]);
}

#[test]
fn symlinks() {
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().join("link");
    symlink("/nowhere/at all", &top).unwrap();
    agrees(&top);
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    symlink(".", tree.join("self")).unwrap();
    symlink("/etc/passwd", tree.join("outside")).unwrap();
    agrees(&tree);
    // Longer than what the nix-nar crate can take.
    symlink("a".repeat(4095), tree.join("longest")).unwrap();
    let ours = hashed(&tree);
    agrees_with_nix_store(&tree, (ours.nar_sha256, ours.nar_size));
}

#[test]
fn directories_empty_nested_and_large() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    fs::create_dir_all(tree.join("a/empty")).unwrap();
    agrees(&tree);
    let mut deep = tree.clone();
    for _ in 0..200 {
        deep.push("d");
        fs::create_dir(&deep).unwrap();
        write(deep.join("after"), "x");
    }
    agrees(&tree);
    let many = tree.join("many");
    fs::create_dir(&many).unwrap();
    (0..5000).for_each(|n| write(many.join(format!("{n}")), format!("{n}")));
    agrees(&tree);
}

/// Bytewise, neither by locale nor with `/` counted: "a" < "a-b" < "a.b" < "a/…" would be wrong.
#[test]
fn entries_in_the_order_of_their_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for name in [
        "a", "B", "b", "A", "_", "a!", "a-b", "a.b", "ab", "aa", "a0", "é", "z", "~", " ", "10", "9", "\u{1}",
    ] {
        write(tree.join(name), name);
    }
    fs::create_dir(tree.join("a+")).unwrap();
    write(tree.join("a+/x"), "");
    agrees(&tree);
}

#[test]
fn names_that_are_not_utf_8() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    for name in [&b"\xff"[..], b"\x80\n", b"caf\xe9", b"\xc3\xa9", b"a\x01b", b"quote'\"\\"] {
        write(tree.join(os(name)), name);
    }
    symlink(os(b"\xfe\xff"), tree.join(os(b"\xfd"))).unwrap();
    let ours = hashed(&tree);
    agrees_with_nix_store(&tree, (ours.nar_sha256, ours.nar_size));
}

/// More than one buffer, and more than what starts the second thread, with small files before and after.
#[test]
fn large_files() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let noise: Vec<u8> = (0..9_000_001_u32).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 23) as u8).collect();
    write(tree.join("a"), "before");
    write(tree.join("b"), &noise);
    write(tree.join("c"), "after");
    write(tree.join("d"), &noise[..4_000_000]);
    agrees(&tree);
    agrees(&tree.join("b"));
}

#[test]
fn sparse_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sparse");
    File::create(&path).unwrap().set_len(20_000_003).unwrap();
    agrees(&path);
}

/// A tree that proptest can make up and shrink.
#[derive(Debug, Clone)]
enum Node {
    File(Vec<u8>, bool),
    Link(String),
    Directory(BTreeMap<String, Node>),
}

impl Node {
    fn any() -> impl Strategy<Value = Self> {
        let leaf = prop_oneof![
            (prop::collection::vec(any::<u8>(), 0..40), any::<bool>())
                .prop_map(|(data, run)| Self::File(data, run)),
            "[a-z/.]{1,20}".prop_map(Self::Link),
        ];
        leaf.prop_recursive(4, 40, 8, |node| {
            prop::collection::btree_map("[-.a-c_é]{1,9}", node, 0..8).prop_map(|mut entries| {
                entries.retain(|name, _| name != "." && name != "..");
                Self::Directory(entries)
            })
        })
    }

    fn make(&self, path: &Path) {
        match self {
            Self::File(data, executable) => {
                write(path, data);
                fs::set_permissions(path, Permissions::from_mode(if *executable { 0o755 } else { 0o644 }))
                    .unwrap();
            }
            Self::Link(target) => symlink(target, path).unwrap(),
            Self::Directory(entries) => {
                fs::create_dir(path).unwrap();
                entries.iter().for_each(|(name, node)| node.make(&path.join(name)));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_tree(node in Node::any()) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("top");
        node.make(&path);
        let ours = hashed(&path);
        prop_assert_eq!((ours.nar_sha256, ours.nar_size), by_nix_nar(&path));
    }
}

#[test]
fn publishing_yields_the_same_as_dumping_the_published_output() {
    if !is_root() {
        return;
    }
    let other = StoreName::parse(b"zyxwvsrqpnmlkjihgfdcba9876543210-other").unwrap();
    let unused = StoreName::parse(b"11111111111111111111111111111111-unused").unwrap();
    let mut build = Build::referring_to([other.clone(), store_name("out"), unused]);
    let out = build.make_directory("out");
    write(out.join("script"), format!("#!{}/bin/sh\n", other.in_store(Path::new("/nix/store")).display()));
    fs::set_permissions(out.join("script"), Permissions::from_mode(0o700)).unwrap();
    symlink(format!("/nix/store/{}/script", store_name("out")), out.join("self")).unwrap();
    let published = build.publish("out").unwrap();
    assert_eq!(published.references, [store_name("out"), other]);
    assert_eq!((published.nar_sha256, published.nar_size), by_nix_nar(&out));
    agrees(&out);
}

#[test]
fn a_reference_may_hide_in_a_file_name() {
    let hidden = StoreName::parse(b"zyxwvsrqpnmlkjihgfdcba9876543210-other").unwrap();
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("top")).unwrap();
    write(directory.path().join("top").join(format!("x{}y", hidden.hash_part())), "");
    let parent = File::open(directory.path()).unwrap();
    let candidates = Candidates::new([hidden.clone(), store_name("not-there")]);
    let found = hash_and_scan(parent.as_fd(), b"top", &candidates, None).unwrap();
    assert_eq!(found.references, [hidden]);
}
