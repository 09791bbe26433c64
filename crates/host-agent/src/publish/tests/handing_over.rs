//! Build directories that change hands.

use std::ffi::CString;
use std::os::unix::fs::symlink;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::*;

/// A build directory with one of everything.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(place.top()).unwrap();
        place
    }

    fn top(&self) -> PathBuf {
        self.directory.path().join("build")
    }

    fn file(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.top().join(name);
        write(&path, "x");
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    fn hand_over(&self) -> Result<(), PublishError> {
        let parent = File::open(self.directory.path()).unwrap();
        hand_over(parent.as_fd(), b"build", transfer(&Interrupt::default()))
    }

    fn found(&self, name: &str) -> (u32, u32, u32) {
        let metadata = self.top().join(name).symlink_metadata().unwrap();
        (metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
    }
}

#[test]
fn all_of_it_is_its_owners_who_alone_can_enter_it_and_nothing_is_set_id() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.file("plain", 0o640);
    place.file("open", 0o666);
    place.file("setuid", 0o6777);
    place.file("unreadable", 0o010);
    fs::create_dir(place.top().join("closed")).unwrap();
    place.file("closed/inner", 0o4711);
    fs::set_permissions(place.top().join("closed"), Permissions::from_mode(0o000)).unwrap();
    fs::create_dir(place.top().join("shared")).unwrap();
    fs::set_permissions(place.top().join("shared"), Permissions::from_mode(0o3777)).unwrap();
    symlink("/etc/passwd", place.top().join("link")).unwrap();
    nix::unistd::mkfifo(&place.top().join("fifo"), Mode::from_bits_truncate(0o722)).unwrap();
    fs::set_permissions(place.top(), Permissions::from_mode(0o777)).unwrap();
    give_to_builder(&place.top());
    assert_eq!(place.found("setuid"), (0o6777, BUILDER, BUILDER));

    place.hand_over().unwrap();

    let his = |mode| (mode, OWNER.0, OWNER.1);
    assert_eq!(place.found(""), his(0o700));
    assert_eq!(place.found("plain"), his(0o640));
    assert_eq!(place.found("open"), his(0o644));
    assert_eq!(place.found("setuid"), his(0o755));
    assert_eq!(place.found("unreadable"), his(0o410));
    assert_eq!(place.found("closed"), his(0o700));
    assert_eq!(place.found("closed/inner"), his(0o711));
    assert_eq!(place.found("shared"), his(0o1755));
    assert_eq!(place.found("link"), his(0o777));
    assert_eq!(fs::metadata("/etc/passwd").unwrap().uid(), 0);
    let (mode, ..) = place.found("fifo");
    assert_eq!(mode & 0o6022, 0);
}

#[test]
fn what_is_not_the_builders_is_taken_out_and_stays_as_it_is_elsewhere() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.file("own", 0o644);
    let outside = place.directory.path().join("outside");
    write(&outside, "root's");
    give_to_builder(&place.top());
    fs::hard_link(&outside, place.top().join("planted")).unwrap();
    let made = fs::metadata(&outside).unwrap();
    fs::create_dir(place.top().join("foreign")).unwrap();
    place.file("foreign/file", 0o4755);
    mknod(&place.top().join("null"), SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 3)).unwrap();
    lchown(place.top().join("null"), Some(BUILDER), Some(BUILDER)).unwrap();

    place.hand_over().unwrap();

    let names: Vec<_> = fs::read_dir(place.top()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["own"]);
    let after = fs::metadata(&outside).unwrap();
    assert_eq!((after.ino(), after.uid(), after.mode()), (made.ino(), 0, made.mode()));
    assert_eq!(after.nlink(), 1);
}

#[test]
fn the_names_of_a_file_stay_one_file() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.file("one", 0o6755);
    fs::hard_link(place.top().join("one"), place.top().join("two")).unwrap();
    give_to_builder(&place.top());
    place.hand_over().unwrap();
    assert_eq!(place.found("one"), (0o755, OWNER.0, OWNER.1));
    let inode = |name: &str| fs::metadata(place.top().join(name)).unwrap().ino();
    assert_eq!(inode("one"), inode("two"));
}

#[test]
fn capabilities_of_files_go() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let file = place.file("capable", 0o755);
    give_to_builder(&place.top());
    // cap_setuid+ep, version 2 (linux/capability.h).
    let value = [1, 0, 0, 2, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0_u8];
    assert_eq!(capability(&file, Some(&value)), 0, "can't be set here");
    assert!(capability(&file, None) > 0);
    place.hand_over().unwrap();
    assert!(capability(&file, None) <= 0);
}

/// Sets it, or tells its length.
#[expect(unsafe_code, reason = "the nix crate has no calls for extended attributes")]
fn capability(file: &Path, value: Option<&[u8]>) -> isize {
    let path = CString::new(file.as_os_str().as_bytes()).unwrap();
    let name = c"security.capability";
    // SAFETY: path and name end in NUL; `value` and its length describe a buffer that the kernel reads, and a length of 0
    // asks for nothing to be written.
    unsafe {
        match value {
            Some(value) => {
                libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) as isize
            }
            None => libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0),
        }
    }
}

#[test]
fn a_top_that_is_not_the_builders_is_refused_and_left_alone() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.file("file", 0o6755);
    let error = place.hand_over().unwrap_err();
    assert!(matches!(error, PublishError::Ownership { uid: 0, expected: BUILDER, .. }), "{error}");
    assert_eq!(place.found("file"), (0o6755, 0, 0));
}

#[test]
fn says_what_could_not_be_found() {
    let directory = tempfile::tempdir().unwrap();
    let parent = File::open(directory.path()).unwrap();
    let error = hand_over(parent.as_fd(), b"nothing", transfer(&Interrupt::default())).unwrap_err();
    assert_eq!(error.to_string(), "can't open 'nothing': No such file or directory (os error 2)");
}
