//! Outputs that are copied, because someone may hold a descriptor to the original.

use std::os::unix::fs::symlink;

use super::*;

fn copy(
    build: &mut Build,
    target: &Path,
    adjust: impl FnOnce(&mut Leftover<'_>),
) -> Result<Published, PublishError> {
    let directory = File::open(target).unwrap();
    give_to_builder(&build.path("out"));
    build.publish_handled("out", Handling::CopyTo { directory: directory.as_fd() }, adjust)
}

fn some_output(build: &Build) -> PathBuf {
    let out = build.make_directory("out");
    fs::create_dir(out.join("empty")).unwrap();
    write(out.join("script"), "#!x");
    fs::set_permissions(out.join("script"), Permissions::from_mode(0o755)).unwrap();
    write(out.join(os(b"caf\xe9")), vec![b'x'; 700_001]);
    fs::hard_link(out.join("script"), out.join("script-2")).unwrap();
    symlink("/nowhere", out.join("link")).unwrap();
    out
}

#[test]
fn a_copy_is_published_and_the_original_stays_as_it_is() {
    if !is_root() {
        return;
    }
    let mut build = Build::new();
    let out = some_output(&build);
    give_to_builder(&out);
    let paths = ["", "script", "empty", "link"].map(|name| out.join(name));
    let before = paths.each_ref().map(|path| facts(path));
    let target = tempfile::tempdir().unwrap();
    let copied = copy(&mut build, target.path(), |_| {}).unwrap();
    assert_eq!(paths.each_ref().map(|path| facts(path)), before);
    let copy = target.path().join(store_name("out").as_str());
    for (name, mode) in [("", 0o555), ("script", 0o555), ("empty", 0o555), ("link", 0o777)] {
        let metadata = copy.join(name).symlink_metadata().unwrap();
        let found = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid(), metadata.mtime());
        assert_eq!(found, (mode, OWNER.0, OWNER.1, 1), "{name}");
    }
    assert_eq!(build.publish("out").unwrap(), copied);
}

#[test]
fn copies_to_another_file_system() {
    if !is_root() {
        return;
    }
    let Ok(target) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("skipped: no /dev/shm");
        return;
    };
    let mut build = Build::new();
    some_output(&build);
    let copied = copy(&mut build, target.path(), |_| {}).unwrap();
    assert_eq!(build.publish("out").unwrap(), copied);
}

#[test]
fn holes_stay_holes() {
    if !is_root() {
        return;
    }
    use std::os::unix::fs::FileExt;
    for other in [None, Some("/dev/shm")] {
        let mut build = Build::new();
        let file = File::create(build.path("out")).unwrap();
        file.write_all_at(b"data", 3 << 20).unwrap();
        file.write_all_at(b"more", 9 << 20).unwrap();
        file.set_len((12 << 20) + 1).unwrap();
        let target = other.map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap();
        let copied = copy(&mut build, target.path(), |_| {}).unwrap();
        let copy = target.path().join(store_name("out").as_str());
        assert!(copy.metadata().unwrap().blocks() * 512 < 1 << 20);
        assert_eq!(build.publish("out").unwrap(), copied);
    }
}

#[test]
fn the_rules_hold_for_what_is_copied_and_a_failure_leaves_nothing() {
    if !is_root() {
        return;
    }
    let secret = tempfile::NamedTempFile::new_in("/tmp").unwrap();
    let breakers: [&dyn Fn(&Path); 3] = [
        &|out| nix::unistd::mkfifo(&out.join("z"), nix::sys::stat::Mode::S_IRWXU).unwrap(),
        &|out| fs::set_permissions(out, Permissions::from_mode(0o777)).unwrap(),
        &|out| {
            give_to_builder(out);
            lchown(out.join("script"), Some(1), None).unwrap();
        },
    ];
    for breaker in breakers {
        let mut build = Build::new();
        breaker(&some_output(&build));
        let target = tempfile::tempdir().unwrap();
        copy(&mut build, target.path(), |_| {}).unwrap_err();
        assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);
    }
    drop(secret);
    for limit in [100, 100_000, 700_500] {
        let mut build = Build::new();
        some_output(&build);
        let target = tempfile::tempdir().unwrap();
        let error =
            copy(&mut build, target.path(), |leftover| leftover.max_nar_bytes = Some(limit)).unwrap_err();
        assert!(matches!(error, PublishError::TooLarge { .. }), "{error}");
        assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);
    }
}

#[test]
fn what_fits_the_limit_in_place_fits_as_a_copy() {
    if !is_root() {
        return;
    }
    let size = {
        let mut build = Build::new();
        some_output(&build);
        build.publish("out").unwrap().nar_size
    };
    let mut build = Build::new();
    some_output(&build);
    let target = tempfile::tempdir().unwrap();
    copy(&mut build, target.path(), |leftover| leftover.max_nar_bytes = Some(size)).unwrap();
}

#[test]
fn does_not_replace_or_remove_what_is_there() {
    if !is_root() {
        return;
    }
    let mut build = Build::new();
    some_output(&build);
    let target = tempfile::tempdir().unwrap();
    let there = target.path().join(store_name("out").as_str());
    fs::create_dir(&there).unwrap();
    write(there.join("file"), "x");
    let error = copy(&mut build, target.path(), |_| {}).unwrap_err();
    assert!(error.to_string().ends_with("File exists (os error 17)"), "{error}");
    assert!(there.join("file").exists());
}

#[test]
fn any_owner_will_do_where_no_rule_names_one() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("tree")).unwrap();
    write(directory.path().join("tree/file"), "x");
    let parent = File::open(directory.path()).unwrap();
    copy_tree(parent.as_fd(), b"tree", parent.as_fd(), b"copy", &CopyRules::default()).unwrap();
    assert_eq!(fs::read(directory.path().join("copy/file")).unwrap(), b"x");
    remove_tree(parent.as_fd(), b"copy").unwrap();
    assert!(!directory.path().join("copy").exists());
}
