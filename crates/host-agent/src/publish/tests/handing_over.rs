//! Kept build directories.

use std::os::unix::fs::symlink;

use super::*;

#[test]
fn only_what_the_builder_owned_changes_hands() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().join("build");
    fs::create_dir(&top).unwrap();
    fs::set_permissions(&top, Permissions::from_mode(0o700)).unwrap();
    let file = |name: &str, mode| {
        write(top.join(name), "x");
        fs::set_permissions(top.join(name), Permissions::from_mode(mode)).unwrap();
    };
    file("plain", 0o640);
    file("setuid", 0o6755);
    fs::create_dir(top.join("closed")).unwrap();
    file("closed/inner", 0o600);
    fs::set_permissions(top.join("closed"), Permissions::from_mode(0o000)).unwrap();
    let outside = directory.path().join("outside");
    write(&outside, "x");
    symlink(&outside, top.join("link")).unwrap();
    nix::unistd::mkfifo(&top.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    give_to_builder(&top);
    file("foreign", 0o4755);
    fs::hard_link(&outside, top.join("planted")).unwrap();
    let before = [facts(&outside), facts(&top.join("foreign"))];

    let parent = File::open(directory.path()).unwrap();
    hand_over(parent.as_fd(), b"build", BUILDER, OWNER).unwrap();

    assert_eq!([facts(&outside), facts(&top.join("foreign"))], before);
    let found = |name: &str| {
        let metadata = top.join(name).symlink_metadata().unwrap();
        (metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
    };
    assert_eq!(found(""), (0o755, OWNER.0, OWNER.1));
    assert_eq!(found("plain"), (0o640, OWNER.0, OWNER.1));
    assert_eq!(found("setuid"), (0o755, OWNER.0, OWNER.1));
    assert_eq!(found("closed"), (0o000, OWNER.0, OWNER.1));
    assert_eq!(found("closed/inner"), (0o600, OWNER.0, OWNER.1));
    assert_eq!(found("link"), (0o777, OWNER.0, OWNER.1));
    assert_eq!(found("fifo"), (0o700, OWNER.0, OWNER.1));
}

#[test]
fn says_what_could_not_be_found() {
    let directory = tempfile::tempdir().unwrap();
    let parent = File::open(directory.path()).unwrap();
    let error = hand_over(parent.as_fd(), b"nothing", BUILDER, OWNER).unwrap_err();
    assert_eq!(error.to_string(), "can't open 'nothing': No such file or directory (os error 2)");
}
