//! Files with several names: within an output, across outputs, and towards elsewhere.

use std::os::unix::fs::symlink;

use super::*;

#[test]
fn names_within_an_output_stay_linked() {
    if !is_root() {
        return;
    }
    let mut build = Build::new();
    let out = build.make_directory("out");
    write(out.join("a"), "x");
    fs::hard_link(out.join("a"), out.join("b")).unwrap();
    symlink("x", out.join("link")).unwrap();
    fs::hard_link(out.join("link"), out.join("link-2")).unwrap();
    let published = build.publish("out").unwrap();
    let inode = |name: &str| out.join(name).symlink_metadata().unwrap().ino();
    assert_eq!(inode("a"), inode("b"));
    assert_eq!(inode("link"), inode("link-2"));
    // A NAR does not know of links: the same as two separate files.
    let mut separate = Build::new();
    let out = separate.make_directory("out");
    write(out.join("a"), "x");
    write(out.join("b"), "x");
    symlink("x", out.join("link")).unwrap();
    symlink("x", out.join("link-2")).unwrap();
    assert_eq!(separate.publish("out").unwrap(), published);
}

#[test]
fn outputs_of_one_build_may_share_files() {
    if !is_root() {
        return;
    }
    let mut build = Build::new();
    let (out, dev) = (build.make_directory("out"), build.make_directory("dev"));
    write(out.join("file"), "x");
    fs::set_permissions(out.join("file"), Permissions::from_mode(0o700)).unwrap();
    fs::hard_link(out.join("file"), dev.join("file")).unwrap();
    give_to_builder(&out);
    give_to_builder(&dev);
    let first = build.publish_as_it_is("out", |_| {}).unwrap();
    let second = build.publish_as_it_is("dev", |_| {}).unwrap();
    assert_eq!(first, second);
    assert_eq!(dev.join("file").metadata().unwrap().nlink(), 2);
}

#[test]
fn outputs_of_another_build_are_someone_elses() {
    if !is_root() {
        return;
    }
    let mut build = Build::new();
    let (out, dev) = (build.make_directory("out"), build.make_directory("dev"));
    write(out.join("file"), "x");
    build.publish("out").unwrap();
    give_to_builder(&dev);
    fs::hard_link(out.join("file"), dev.join("file")).unwrap();
    let before = facts(&out.join("file"));
    build.links = Links::default();
    let error = build.publish_as_it_is("dev", |_| {}).unwrap_err();
    assert!(matches!(error, PublishError::Ownership { uid, .. } if uid == OWNER.0), "{error}");
    assert_eq!(facts(&out.join("file")), before);
}

#[test]
fn a_file_that_was_changed_after_it_was_canonicalised_is_refused() {
    if !is_root() {
        return;
    }
    let mut build = Build::new();
    let (out, dev) = (build.make_directory("out"), build.make_directory("dev"));
    write(out.join("file"), "x");
    fs::hard_link(out.join("file"), dev.join("file")).unwrap();
    build.publish("out").unwrap();
    give_to_builder(&dev);
    fs::set_permissions(out.join("file"), Permissions::from_mode(0o644)).unwrap();
    let error = build.publish_as_it_is("dev", |_| {}).unwrap_err();
    assert!(matches!(error, PublishError::Ownership { .. }), "{error}");
}
