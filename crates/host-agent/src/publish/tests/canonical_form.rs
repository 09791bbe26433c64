//! What published entries look like.

use std::ffi::CString;
use std::os::unix::fs::symlink;
use std::process::Command;

use super::*;

#[track_caller]
fn is_canonical(path: &Path, mode: u32) {
    let metadata = path.symlink_metadata().unwrap();
    let found =
        (metadata.mode() & 0o7777, metadata.uid(), metadata.gid(), metadata.mtime(), metadata.mtime_nsec());
    assert_eq!(found, (mode, OWNER.0, OWNER.1, 1, 0), "{}", path.display());
}

#[test]
fn modes_owners_and_times_are_those_of_a_store() {
    if !is_root() {
        return;
    }
    let mut build = Build::new();
    let out = build.make_directory("out");
    let modes = [
        (0o644, 0o444),
        (0o600, 0o444),
        (0o000, 0o444),
        (0o755, 0o555),
        (0o100, 0o555),
        (0o011, 0o444),
        (0o6777, 0o555),
        (0o4644, 0o444),
    ];
    for (mode, _) in modes {
        let path = out.join(format!("file-{mode:o}"));
        write(&path, "x");
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
    for mode in [0o000, 0o700, 0o2755, 0o1777, 0o755] {
        let path = out.join(format!("directory-{mode:o}"));
        fs::create_dir(&path).unwrap();
        write(path.join("file"), "x");
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
    symlink("/etc/passwd", out.join("link")).unwrap();
    let passwd = facts(Path::new("/etc/passwd"));
    build.publish("out").unwrap();
    for (mode, canonical) in modes {
        is_canonical(&out.join(format!("file-{mode:o}")), canonical);
    }
    for mode in [0o000, 0o700, 0o2755, 0o1777, 0o755] {
        is_canonical(&out.join(format!("directory-{mode:o}")), 0o555);
        is_canonical(&out.join(format!("directory-{mode:o}/file")), 0o444);
    }
    is_canonical(&out.join("link"), 0o777);
    is_canonical(&out, 0o555);
    assert_eq!(facts(Path::new("/etc/passwd")), passwd);
}

#[test]
fn publishing_again_changes_nothing() {
    if !is_root() {
        return;
    }
    let mut build = Build::new();
    let out = build.make_directory("out");
    write(out.join("file"), "x");
    symlink("x", out.join("link")).unwrap();
    let first = build.publish("out").unwrap();
    let before = [&out, &out.join("file"), &out.join("link")].map(|path| facts(path));
    let second = build.publish_as_it_is("out", |leftover| leftover.builder = OWNER.0).unwrap();
    assert_eq!(first, second);
    assert_eq!([&out, &out.join("file"), &out.join("link")].map(|path| facts(path)), before);
}

fn attributes(path: &Path) -> Vec<String> {
    let output = Command::new("getfattr").args(["-h", "-m", "-", "--absolute-names"]).arg(path).output();
    let Ok(output) = output else { return Vec::new() };
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// Sets an attribute through `setfattr`-less means: the tests must not need packages to fail.
#[expect(unsafe_code, reason = "the nix crate has no calls for extended attributes")]
fn set_attribute(path: &Path, name: &str, value: &[u8]) -> bool {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let name = CString::new(name).unwrap();
    // SAFETY: the strings end in NUL, the value has the length given, and all are only read.
    let result =
        unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if result != 0 {
        eprintln!("skipped {name:?}: {}", std::io::Error::last_os_error());
    }
    result == 0
}

#[expect(unsafe_code, reason = "the nix crate has no calls for extended attributes")]
fn attribute_bytes(path: &Path) -> usize {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: a null list of length 0 only asks for the size.
    let size = unsafe { libc::llistxattr(path.as_ptr(), std::ptr::null_mut(), 0) };
    usize::try_from(size).unwrap()
}

/// An access control list that lets uid 1 write, in the kernel's format (linux/posix_acl_xattr.h).
fn acl() -> Vec<u8> {
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(1_u16, 6_u16, u32::MAX), (2, 7, 1), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 5, u32::MAX)]
    {
        list.extend(tag.to_le_bytes().into_iter().chain(permissions.to_le_bytes()).chain(id.to_le_bytes()));
    }
    list
}

#[test]
fn extended_attributes_and_access_control_lists_are_removed() {
    if !is_root() {
        return;
    }
    let mut build = Build::new();
    let out = build.make_directory("out");
    write(out.join("file"), "x");
    fs::create_dir(out.join("directory")).unwrap();
    symlink("x", out.join("link")).unwrap();
    give_to_builder(&out);
    let mut set = 0;
    for path in [&out.join("file"), &out.join("directory"), &out.join("link"), &out] {
        set += usize::from(set_attribute(path, "trusted.test", b"value"));
        if !path.is_symlink() {
            set += usize::from(set_attribute(path, "user.test", &[b'v'; 100]));
            set += usize::from(set_attribute(path, "system.posix_acl_access", &acl()));
        }
    }
    set += usize::from(set_attribute(&out.join("directory"), "system.posix_acl_default", &acl()));
    // More names than fit into the first, small list.
    for number in 0..30 {
        set += usize::from(set_attribute(&out.join("file"), &format!("user.number-{number:020}"), b""));
    }
    fs::set_permissions(&out, Permissions::from_mode(0o755)).unwrap();
    if set == 0 {
        return;
    }
    build.publish_as_it_is("out", |_| {}).unwrap();
    for path in [&out.join("file"), &out.join("directory"), &out.join("link"), &out] {
        assert_eq!(attribute_bytes(path), 0, "{}: {:?}", path.display(), attributes(path));
    }
    is_canonical(&out.join("file"), 0o444);
    is_canonical(&out.join("directory"), 0o555);
}
