//! Attacks on what a slot shows of the store, and on what it covers.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::Path;

use nix::errno::Errno;

use crate::call::{call, enter_user_namespace, in_child, own_proc, pointer, tell, tell_io, tell_word};

const COVERED: &str = "/run/.store";
const NONE: u64 = 0;

/// An input that is a directory with a file `inside` in it, one that is a file, a store object that is no input, by its name.
struct Targets<'a> {
    directory: &'a Path,
    file: &'a Path,
    hidden: &'a str,
    /// `struct file_handle` of the hidden one, as hexadecimal digits.
    handle: &'a str,
}

pub fn attack(words: &[&str]) {
    if words == ["mounts"] {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.lines().for_each(|line| println!("mount: {line}"));
        return;
    }
    let (way, [directory, file, hidden, handle]) =
        words.split_first().map(|(way, rest)| (*way, <[&str; 4]>::try_from(rest).unwrap())).unwrap();
    let targets = Targets { directory: Path::new(directory), file: Path::new(file), hidden, handle };
    match way {
        "change" => change(&targets),
        "link" => link(&targets),
        "mount" => mount(&targets),
        "mount-in-user-namespace" => {
            let ended = in_child(|| {
                let entered = enter_user_namespace(libc::CLONE_NEWNS);
                tell("enter", entered);
                if entered.is_ok() {
                    change(&targets);
                    mount(&targets);
                }
                0
            });
            tell_word("namespace", ended);
        }
        _ => panic!("{words:?}"),
    }
}

/// Through the file system.
fn change(targets: &Targets) {
    for (what, path) in [
        ("directory", targets.directory),
        ("file", targets.file),
        ("inside", &targets.directory.join("inside")),
    ] {
        let said = |how: &str| format!("{how}-{what}");
        let target = pointer(path);
        tell_io(said("write"), fs::File::options().write(true).open(path));
        tell_io(said("append"), fs::File::options().append(true).open(path));
        tell_io(said("truncate"), call(libc::SYS_truncate, &[target, 0]).map_err(Into::into));
        tell_io(said("chmod"), fs::set_permissions(path, fs::Permissions::from_mode(0o777)));
        tell_io(said("chown"), chown(path, Some(nix::unistd::getuid().as_raw()), None));
        tell_io(said("lchown"), lchown(path, Some(0), Some(0)));
        let times = [0_u64; 4];
        tell(
            said("times"),
            call(libc::SYS_utimensat, &[libc::AT_FDCWD as u64, target, times.as_ptr() as u64, 0]),
        );
        tell(said("attribute"), call(libc::SYS_setxattr, &[target, pointer("user.x"), target, 1, 0]));
        tell_io(said("rename"), fs::rename(path, "moved-input"));
        tell_io(
            said("rename-beside"),
            fs::rename(path, path.with_file_name("00000000000000000000000000000000-moved")),
        );
        fs::write("replacement", "").unwrap();
        tell_io(said("replace"), fs::rename("replacement", path));
        let beside = path.with_file_name("00000000000000000000000000000000-replacement");
        let _ = fs::write(&beside, "");
        tell_io(said("replace-beside"), fs::rename(&beside, path));
        let exchange = [
            libc::AT_FDCWD as u64,
            pointer(&beside),
            libc::AT_FDCWD as u64,
            target,
            libc::RENAME_EXCHANGE.into(),
        ];
        tell(said("exchange"), call(libc::SYS_renameat2, &exchange));
        tell_io(said("link-over"), symlink("/etc/passwd", path));
        tell_io(said("unlink"), fs::remove_file(path));
        tell_io(said("rmdir"), fs::remove_dir(path));
    }
    tell_io("make", fs::write(targets.directory.join("new"), ""));
    tell_io("make-directory", fs::create_dir(targets.directory.join("new-directory")));
}

/// Files of the store's and of root's under another name, where they could be changed or given away.
fn link(targets: &Targets) {
    let out = std::env::var_os("out").unwrap();
    let out = Path::new(&out);
    fs::create_dir(out).unwrap();
    fs::write(out.join("own"), "").unwrap();
    let store = out.parent().unwrap();
    let inside = targets.directory.join("inside");
    let hidden = store.join(targets.hidden);
    for (from, what) in [
        (targets.file, "file"),
        (&inside, "inside"),
        (&hidden, "hidden"),
        (Path::new("/etc/passwd"), "accounts"),
        (Path::new("/usr/bin/env"), "program"),
        (Path::new("/dev/null"), "device"),
        (Path::new("/proc/self/mem"), "process"),
    ] {
        for (directory, where_to) in [(Path::new("/build"), "build"), (out, "output"), (store, "store")] {
            let to = directory.join(format!("00000000000000000000000000000000-link-{what}"));
            let said = |how: &str| format!("{how}-{what}-into-{where_to}");
            tell_io(said("link"), fs::hard_link(from, &to));
            let Ok(opened) = call(libc::SYS_open, &[pointer(from), libc::O_PATH as u64]) else { continue };
            let (here, to) = (libc::AT_FDCWD as u64, pointer(&to));
            let empty = [opened as u64, pointer(""), here, to, libc::AT_EMPTY_PATH as u64];
            tell(said("descriptor"), call(libc::SYS_linkat, &empty));
            let by_path =
                [here, pointer(format!("/proc/self/fd/{opened}")), here, to, libc::AT_SYMLINK_FOLLOW as u64];
            tell(said("descriptor-path"), call(libc::SYS_linkat, &by_path));
        }
    }
}

/// Through mounts: those of inputs taken off or made writable, the covered store uncovered.
fn mount(targets: &Targets) {
    fs::create_dir_all("mount-point").unwrap();
    let here = pointer("mount-point");
    let at_cwd = libc::AT_FDCWD as u64;
    let mount = |from: u64, to: u64, flags: u64| call(libc::SYS_mount, &[from, to, NONE, flags, NONE]);
    let writable = libc::MS_REMOUNT | libc::MS_BIND;
    let hidden = |below: &Path| fs::symlink_metadata(below.join(targets.hidden));
    let covered = pointer(COVERED);
    tell_io("covered-list", fs::read_dir(COVERED));
    tell_io("covered-hidden", hidden(Path::new(COVERED)));
    for (what, path) in [("directory", targets.directory), ("file", targets.file)] {
        let said = |how: &str| format!("{how}-{what}");
        let target = pointer(path);
        tell(said("remount"), mount(NONE, target, writable));
        // struct mount_attr: to set, to clear, propagation, user namespace.
        let attributes = [0, libc::MOUNT_ATTR_RDONLY, 0, 0];
        let size = size_of_val(&attributes) as u64;
        tell(
            said("attributes"),
            call(libc::SYS_mount_setattr, &[at_cwd, target, 0, attributes.as_ptr() as u64, size]),
        );
        tell(said("move"), mount(target, here, libc::MS_MOVE));
        tell(said("unmount"), call(libc::SYS_umount2, &[target, libc::MNT_DETACH as u64]));
        tell(said("write-after"), call(libc::SYS_open, &[target, libc::O_WRONLY as u64]));
        let inside = pointer(path.join("inside"));
        tell(said("write-inside-after"), call(libc::SYS_open, &[inside, libc::O_WRONLY as u64]));
    }
    tell("uncover", call(libc::SYS_umount2, &[covered, libc::MNT_DETACH as u64]));
    tell("uncover-remount", mount(NONE, covered, libc::MS_REMOUNT));
    tell("uncover-move", mount(covered, here, libc::MS_MOVE));
    // What is mounted below stays behind: then what it covers is seen.
    for above in ["/run", "/"] {
        tell(
            format!("uncover-bind-{above}"),
            mount(pointer(above), here, libc::MS_BIND).inspect(|_| {
                let _ = call(libc::SYS_umount2, &[here, libc::MNT_DETACH as u64]);
            }),
        );
        let clone = u64::from(libc::OPEN_TREE_CLONE);
        tell(format!("uncover-clone-{above}"), call(libc::SYS_open_tree, &[at_cwd, pointer(above), clone]));
    }
    let recursive = u64::from(libc::OPEN_TREE_CLONE) | libc::AT_RECURSIVE as u64;
    let tree = call(libc::SYS_open_tree, &[at_cwd, pointer("/run"), recursive]);
    if let Ok(tree) = tree {
        let moved = [tree as u64, pointer(""), at_cwd, here, u64::from(libc::MOVE_MOUNT_F_EMPTY_PATH)];
        if call(libc::SYS_move_mount, &moved).is_ok() {
            let below = Path::new("mount-point/.store");
            tell("uncover-copy", call(libc::SYS_umount2, &[pointer(below), libc::MNT_DETACH as u64]));
            tell_io("copy-hidden", hidden(below));
        }
    }
    for descriptor in 0..16 {
        let by = own_proc().join(format!("1/fd/{descriptor}"));
        tell_io(format!("descriptor-{descriptor}-hidden"), hidden(&by));
    }
    tell("pivot", call(libc::SYS_pivot_root, &[here, here]));
    tell_io("pivoted-hidden", hidden(Path::new("/.store")));
    tell_io("covered-hidden-after", hidden(Path::new(COVERED)));
    tell_io("store-hidden-after", hidden(targets.directory.parent().unwrap()));
    by_handle(targets);
}

/// By the number that its file system knows it by, starting from every mount there is.
fn by_handle(targets: &Targets) {
    let bytes: Vec<u8> = (0..targets.handle.len() / 2)
        .map(|at| u8::from_str_radix(&targets.handle[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let mounts = [
        Path::new("."),
        targets.directory,
        targets.directory.parent().unwrap(),
        Path::new("/run"),
        Path::new("/"),
    ];
    for mount in mounts {
        let opened = call(libc::SYS_open, &[pointer(mount), libc::O_RDONLY as u64]);
        let opened = opened.and_then(|mount| {
            let flags = (libc::O_RDONLY | libc::O_NONBLOCK) as u64;
            call(libc::SYS_open_by_handle_at, &[mount as u64, bytes.as_ptr() as u64, flags])
        });
        // A handle that means nothing there is as good as refused, so that this is tried at all is seen elsewhere.
        tell(
            format!("handle-from-{}", mount.display()),
            opened.map_err(|error| match error {
                Errno::EPERM | Errno::ESTALE | Errno::EOPNOTSUPP => Errno::EPERM,
                other => other,
            }),
        );
    }
}
