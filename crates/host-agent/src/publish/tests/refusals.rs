//! What must not get into a store, and that refusing it leaves it alone.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::*;

type Make = fn(&Path);

#[track_caller]
fn refused(result: Result<Published, PublishError>) -> String {
    result.unwrap_err().to_string().replace(store_name("out").as_str(), "OUT")
}

#[test]
fn refuses_what_is_neither_file_directory_nor_symlink() {
    if !is_root() {
        return;
    }
    let kinds: [(&str, Make); 4] = [
        ("fifo", |path| nix::unistd::mkfifo(path, Mode::S_IRWXU).unwrap()),
        ("socket", |path| drop(UnixListener::bind(path).unwrap())),
        ("character device", |path| mknod(path, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 3)).unwrap()),
        ("block device", |path| mknod(path, SFlag::S_IFBLK, Mode::S_IRWXU, makedev(7, 0)).unwrap()),
    ];
    for (kind, make) in kinds {
        let mut build = Build::new();
        let out = build.make_directory("out");
        fs::create_dir(out.join("sub")).unwrap();
        make(&out.join("sub/thing"));
        let expected =
            format!("'OUT/sub/thing' is a {kind}; only regular files, directories and symlinks can be taken");
        give_to_builder(&out);
        let before = facts(&out.join("sub/thing"));
        assert_eq!(refused(build.publish("out")), expected);
        assert_eq!(facts(&out.join("sub/thing")), before, "{kind}");

        let mut build = Build::new();
        make(&build.path("out"));
        assert!(refused(build.publish("out")).starts_with(&format!("'OUT' is a {kind}")));
    }
}

#[test]
fn refuses_a_hard_link_to_a_file_of_someone_else_and_leaves_that_file_alone() {
    if !is_root() {
        return;
    }
    let mut build = Build::new();
    let out = build.make_directory("out");
    write(out.join("own"), "x");
    give_to_builder(&out);
    let secret = build.directory.path().join("secret");
    write(&secret, "root's");
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    fs::hard_link(&secret, out.join("planted")).unwrap();
    let before = facts(&secret);
    assert_eq!(
        refused(build.publish_as_it_is("out", |_| {})),
        format!(
            "'OUT/planted' belongs to uid 0 instead of {BUILDER}; is it a hard link to a file from elsewhere?"
        )
    );
    assert_eq!(facts(&secret), before);
    assert_eq!(fs::read(&secret).unwrap(), b"root's");
}

#[test]
fn refuses_directories_and_symlinks_of_someone_else() {
    if !is_root() {
        return;
    }
    for make in [|path: &Path| fs::create_dir(path).unwrap(), |path: &Path| symlink("x", path).unwrap()] {
        let mut build = Build::new();
        let out = build.make_directory("out");
        give_to_builder(&out);
        make(&out.join("foreign"));
        let before = facts(&out.join("foreign"));
        let error = build.publish_as_it_is("out", |_| {}).unwrap_err();
        assert!(matches!(error, PublishError::Ownership { uid: 0, expected: BUILDER, .. }), "{error}");
        assert_eq!(facts(&out.join("foreign")), before);

        let mut build = Build::new();
        make(&build.path("out"));
        let error = build.publish_as_it_is("out", |_| {}).unwrap_err();
        assert!(matches!(error, PublishError::Ownership { uid: 0, .. }), "{error}");
    }
}

#[test]
fn refuses_an_output_that_others_may_write_to() {
    if !is_root() {
        return;
    }
    for mode in [0o775, 0o757, 0o777, 0o1777] {
        let mut build = Build::new();
        let out = build.make_directory("out");
        fs::set_permissions(&out, Permissions::from_mode(mode)).unwrap();
        assert_eq!(
            refused(build.publish("out")),
            format!("'OUT' has mode {mode:04o}: group or others may write to it")
        );
    }
    // Further down it does not matter, nor for symlinks, which always say 0777.
    let mut build = Build::new();
    let out = build.make_directory("out");
    write(out.join("file"), "");
    fs::set_permissions(out.join("file"), Permissions::from_mode(0o666)).unwrap();
    build.publish("out").unwrap();
    symlink("x", build.path("link")).unwrap();
    build.publish("link").unwrap();
}

#[test]
fn refuses_mounts_inside_of_an_output() {
    if !is_root() {
        return;
    }
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let mut build = Build::new();
    let out = build.make_directory("out");
    let inside = out.join("mounted");
    fs::create_dir(&inside).unwrap();
    let elsewhere = build.directory.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    write(elsewhere.join("file"), "precious");
    give_to_builder(&out);
    give_to_builder(&elsewhere);
    for bind in [true, false] {
        let mounted = if bind {
            mount(Some(&elsewhere), &inside, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        } else {
            let options = format!("uid={BUILDER},size=4k");
            mount(Some("x"), &inside, Some("tmpfs"), MsFlags::empty(), Some(&*options))
        };
        if let Err(errno) = mounted {
            eprintln!("skipped: can't mount: {errno}");
            return;
        }
        let result = build.publish_as_it_is("out", |_| {});
        // The same mount must survive an attempt to remove the output.
        let parent = File::open(build.directory.path()).unwrap();
        let removed = bind.then(|| remove_tree(parent.as_fd(), store_name("out").as_str().as_bytes()));
        umount2(&inside, MntFlags::MNT_DETACH).unwrap();
        assert_eq!(
            refused(result),
            "'OUT/mounted' is on another file system than the directory that the output is in"
        );
        if let Some(removed) = removed {
            assert_eq!(fs::read(elsewhere.join("file")).unwrap(), b"precious");
            let text = removed.unwrap_err().to_string();
            assert!(text.ends_with("-out/mounted': something is mounted on it"), "{text}");
            assert!(inside.exists());
        }
        // The builder's again, for the second round.
        lchown(&out, Some(BUILDER), None).unwrap();
    }
}

#[test]
fn says_that_an_output_was_not_made() {
    let error = Build::new().publish_as_it_is("out", |_| {}).unwrap_err();
    assert!(matches!(error, PublishError::Missing(_)));
    assert!(error.to_string().ends_with("-out' does not exist"), "{error}");
}

#[test]
fn stops_at_the_size_limit_exactly() {
    if !is_root() {
        return;
    }
    let size = {
        let mut build = Build::new();
        write(build.make_directory("out").join("file"), [0; 1000]);
        build.publish("out").unwrap().nar_size
    };
    for (limit, fits) in [(size, true), (size - 1, false), (0, false), (200, false)] {
        let mut build = Build::new();
        let out = build.make_directory("out");
        write(out.join("file"), [0; 1000]);
        give_to_builder(&out);
        let result = build.publish_as_it_is("out", |leftover| leftover.max_nar_bytes = Some(limit));
        match result {
            Ok(published) => assert!(fits && published.nar_size == size),
            Err(PublishError::TooLarge { limit: told, .. }) => assert!(!fits && told == limit),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn does_not_read_a_file_that_is_too_large_anyway() {
    if !is_root() {
        return;
    }
    let mut build = Build::new();
    // Reading an exabyte of holes would take longer than the age of this test.
    let file = File::create(build.path("out")).unwrap();
    file.set_len(8 << 40).unwrap();
    give_to_builder(&build.path("out"));
    let result = build.publish_as_it_is("out", |leftover| leftover.max_nar_bytes = Some(1 << 30));
    assert!(matches!(result, Err(PublishError::TooLarge { .. })));
}

#[test]
fn a_flat_digest_is_of_a_plain_file_only() {
    if !is_root() {
        return;
    }
    let digest = |method| Some(DigestRequest { algorithm: DigestAlgorithm::Sha1, method });
    let makers: [(bool, Make); 4] = [
        (true, |path| write(path, "abc")),
        (false, |path| {
            write(path, "abc");
            fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        }),
        (false, |path| fs::create_dir(path).unwrap()),
        (false, |path| symlink("abc", path).unwrap()),
    ];
    for (flat, make) in makers {
        let mut build = Build::new();
        make(&build.path("out"));
        give_to_builder(&build.path("out"));
        let result = build.publish_as_it_is("out", |leftover| leftover.digest = digest(DigestMethod::Flat));
        if flat {
            // RFC 3174's test vector.
            let expected = "a9993e364706816aba3e25717850c26c9cd0d89d";
            let found: String =
                result.unwrap().digest.unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, expected);
        } else {
            assert!(matches!(result, Err(PublishError::NotFlat { .. })));
            build
                .publish_as_it_is("out", |leftover| leftover.digest = digest(DigestMethod::Recursive))
                .unwrap();
        }
    }
}

#[test]
fn a_recursive_sha256_is_the_nar_hash() {
    if !is_root() {
        return;
    }
    let mut build = Build::new();
    write(build.make_directory("out").join("file"), "x");
    give_to_builder(&build.path("out"));
    let digest = DigestRequest { algorithm: DigestAlgorithm::Sha256, method: DigestMethod::Recursive };
    let published = build.publish_as_it_is("out", |leftover| leftover.digest = Some(digest)).unwrap();
    assert_eq!(published.digest.as_deref(), Some(&published.nar_sha256[..]));
}
