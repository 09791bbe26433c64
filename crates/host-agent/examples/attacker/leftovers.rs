//! Processes that are to outlive the build, and go on changing its output.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::call::{call, enter_user_namespace, eventually, ignore_signals, in_child, pause, tell_word};

/// `attack OUT KIND…`: makes the output, leaves one of each kind and returns when all are at it.
pub fn attack(words: &[&str]) {
    let [out, kinds @ ..] = words else { panic!("{words:?}") };
    fs::write(out, "made").unwrap();
    for kind in kinds {
        let mark = format!("leftover-{kind}");
        in_child(|| {
            // An orphan, in a session of its own.
            // SAFETY: one thread.
            if unsafe { libc::fork() } == 0 {
                let _ = nix::unistd::setsid();
                leave(kind, Path::new(out), &mark);
            }
            0
        });
        let there = eventually(std::time::Duration::from_secs(10), || Path::new(&mark).exists());
        tell_word(format!("leave-{kind}"), if there { "left" } else { "gone" });
    }
}

fn leave(kind: &str, out: &Path, mark: &str) -> ! {
    match kind {
        "plain" => {}
        "ignoring" => ignore_signals(),
        "quiet" => {
            // SAFETY: nothing is printed from here on.
            unsafe { libc::close_range(0, 1 << 20, 0) };
        }
        "stopped" => {
            fs::write(mark, "").unwrap();
            let _ = call(libc::SYS_kill, &[u64::from(std::process::id()), libc::SIGSTOP as u64]);
        }
        "traced" => {
            // SAFETY: one thread. The parent stays what the child is traced by, and never lets it go on.
            if unsafe { libc::fork() } == 0 {
                let _ = call(libc::SYS_ptrace, &[0]);
                let _ = call(libc::SYS_kill, &[u64::from(std::process::id()), libc::SIGSTOP as u64]);
            }
            ignore_signals();
        }
        "waiting" => {
            ignore_signals();
            // SAFETY: the child touches nothing of the parent's, which waits for it in the kernel.
            if call(libc::SYS_clone, &[(libc::CLONE_VFORK | libc::SIGCHLD) as u64]) == Ok(0) {
                fs::write(mark, "").unwrap();
                pause();
            }
        }
        "hopping" => {
            fs::write(mark, "").unwrap();
            hop(out)
        }
        "nested" => {
            ignore_signals();
            if enter_user_namespace(libc::CLONE_NEWPID | libc::CLONE_NEWNS).is_err() {
                std::process::exit(1);
            }
            // SAFETY: one thread. The child is the first process of its namespace.
            if unsafe { libc::fork() } == 0 {
                // SAFETY: one thread.
                if unsafe { libc::fork() } == 0 {
                    let _ = nix::unistd::setsid();
                    let _ = call(libc::SYS_unshare, &[libc::CLONE_NEWNET as u64]);
                    flip(out, mark);
                }
                pause();
            }
        }
        other => panic!("{other}"),
    }
    flip(out, mark)
}

/// Makes the output a link, and a file again, for ever.
fn flip(out: &Path, mark: &str) -> ! {
    let _ = fs::write(mark, "");
    let beside = out.with_extension(format!("flip-{}", std::process::id()));
    loop {
        if symlink("/etc/passwd", &beside).is_ok() {
            let _ = fs::rename(&beside, out);
        }
        let _ = fs::write(&beside, "changed");
        let _ = fs::rename(&beside, out);
        let _ = fs::write(out, "changed in place");
    }
}

/// As [`flip`], but another process every moment, so that whoever has found it finds one that is gone.
fn hop(out: &Path) -> ! {
    loop {
        // SAFETY: one thread; the copy goes on with the loop.
        if unsafe { libc::fork() } > 0 {
            // SAFETY: ends the original.
            unsafe { libc::_exit(0) }
        }
        let _ = fs::write(out, "changed by one of many");
    }
}
