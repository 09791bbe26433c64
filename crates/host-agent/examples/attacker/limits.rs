//! Takes from the machine until it is refused. Told is how often it was not, and why it was.

use std::os::unix::fs::symlink;
use std::path::Path;

use nix::errno::Errno;

use crate::call::{call, enter_user_namespace, ignore_signals, in_child, pause, pointer, tell, tell_word};

/// Whatever is taken, not more of it than this.
const ENOUGH: usize = 100_000;

pub fn attack(words: &[&str]) {
    match words {
        // Keeps them until it is ended.
        ["processes"] => {
            tell_word("processes", until_refused(process));
            pause();
        }
        ["processes-in-user-namespace"] => {
            tell("enter", enter_user_namespace(0));
            tell_word("processes", until_refused(process));
            pause();
        }
        ["threads"] => tell_word("threads", in_child_told(thread)),
        ["terminals"] => {
            let open =
                |_| call(libc::SYS_open, &[pointer("/dev/ptmx"), (libc::O_RDWR | libc::O_NOCTTY) as u64]);
            tell_word("terminals", until_refused(open));
        }
        ["files", directory] => {
            let make = |number| symlink("x", Path::new(directory).join(format!("{number}")));
            let made = until_refused(|number| match make(number) {
                Ok(()) => Ok(0),
                Err(error) => Err(crate::call::errno(&error)),
            });
            tell_word(format!("files-in-{directory}"), made);
            for number in 0..ENOUGH {
                if std::fs::remove_file(Path::new(directory).join(format!("{number}"))).is_err() {
                    break;
                }
            }
        }
        ["shared-memory"] => {
            let mebibyte = |_| call(libc::SYS_shmget, &[libc::IPC_PRIVATE as u64, 1 << 20, 0o600]);
            tell_word("shared-memory", until_refused(mebibyte));
        }
        ["semaphores"] => {
            let thousand = |_| call(libc::SYS_semget, &[libc::IPC_PRIVATE as u64, 1000, 0o600]);
            tell_word("semaphores", until_refused(thousand));
        }
        ["messages"] => tell_word("messages", until_refused(full_queue)),
        ["tmpfs"] => tmpfs(),
        _ => panic!("{words:?}"),
    }
}

/// How often it was done, and the error that ended that.
fn until_refused(mut take: impl FnMut(usize) -> Result<i64, Errno>) -> String {
    for taken in 0..ENOUGH {
        if let Err(error) = take(taken) {
            return format!("{taken}:{error:?}");
        }
    }
    format!("{ENOUGH}:none")
}

/// One that nothing but SIGKILL ends.
fn process(number: usize) -> Result<i64, Errno> {
    // SAFETY: the copy makes plain calls only.
    match unsafe { libc::fork() } {
        0 => {
            ignore_signals();
            if number.is_multiple_of(3) {
                let _ = nix::unistd::setsid();
            }
            pause()
        }
        child if child < 0 => Err(Errno::last()),
        child => Ok(child.into()),
    }
}

fn thread(_: usize) -> Result<i64, Errno> {
    let thread = std::thread::Builder::new().stack_size(16 << 10).spawn(|| pause());
    thread.map(|_| 0).map_err(|error| crate::call::errno(&error))
}

/// In a process of its own, so that what follows can start others again.
fn in_child_told(take: fn(usize) -> Result<i64, Errno>) -> String {
    let (reading, writing) = nix::unistd::pipe().unwrap();
    in_child(|| {
        let told = until_refused(take);
        let _ = nix::unistd::write(&writing, told.as_bytes());
        0
    });
    let mut told = [0; 64];
    let length = nix::unistd::read(&reading, &mut told).unwrap();
    String::from_utf8_lossy(&told[..length]).into_owned()
}

/// As many messages as one takes. An empty one has a place in the kernel too, and a queue takes as many as it has bytes.
fn full_queue(_: usize) -> Result<i64, Errno> {
    let queue = call(libc::SYS_msgget, &[libc::IPC_PRIVATE as u64, 0o600])?;
    let empty = 1_i64;
    let no_wait = libc::IPC_NOWAIT as u64;
    while call(libc::SYS_msgsnd, &[queue as u64, (&raw const empty) as u64, 0, no_wait]).is_ok() {}
    Ok(queue)
}

/// One of a user namespace's own, which nothing limits.
fn tmpfs() {
    let mount = || {
        let kind = pointer("tmpfs");
        call(libc::SYS_mount, &[kind, pointer("/tmp"), kind, 0, pointer("size=100%")])
    };
    tell("mount", mount());
    let unshared =
        in_child(|| i32::from(enter_user_namespace(libc::CLONE_NEWNS).and_then(|()| mount()).is_err()));
    tell_word("unshared", unshared);
    let flags = (libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::SIGCHLD) as u64;
    tell("clone", call_as_parent(libc::SYS_clone, &[flags]));
    let arguments =
        [(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) as u64, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0];
    let size = size_of_val(&arguments) as u64;
    tell("clone3", call_as_parent(libc::SYS_clone3, &[arguments.as_ptr() as u64, size]));
    // What makes mounts without a path.
    tell("fsopen", call(libc::SYS_fsopen, &[pointer("tmpfs"), 0]));
}

/// A call that returns twice; the child ends.
fn call_as_parent(number: libc::c_long, arguments: &[u64]) -> Result<i64, Errno> {
    match call(number, arguments)? {
        // SAFETY: ends the copy.
        0 => unsafe { libc::_exit(0) },
        child => Ok(child),
    }
}
