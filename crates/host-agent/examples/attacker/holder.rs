//! Has a uid that slots have, outside of any slot: what no process should be able to come by. Started as root.

use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::call::{call, ignore_signals, pause};

/// A test that has been ended must not leave it for ever.
const LONGEST: Duration = Duration::from_secs(60);

/// `hold HOW UID`: says `holds` when it has it. Ends when it is killed.
pub fn hold(words: &[&str]) {
    let [how, number, rest @ ..] = words else { panic!("{words:?}") };
    let number: u32 = number.parse().unwrap();
    let (root, uid, gid) = (Uid::from_raw(0), Uid::from_raw(number), Gid::from_raw(number));
    ignore_signals();
    // SAFETY: a number.
    unsafe { libc::alarm(0) };
    match *how {
        "all" => become_it(number),
        "real" => setresuid(uid, root, root).unwrap(),
        "effective" => setresuid(root, uid, root).unwrap(),
        "saved" => setresuid(root, root, uid).unwrap(),
        "file-system" => {
            nix::unistd::setfsuid(uid);
        }
        "group" => setresgid(gid, gid, gid).unwrap(),
        "further-group" => {
            setgroups(&[gid]).unwrap();
            let nobody = Uid::from_raw(65534);
            setresuid(nobody, nobody, nobody).unwrap();
        }
        "thread" => {
            let ready = std::sync::Arc::new(std::sync::Barrier::new(2));
            let there = ready.clone();
            std::thread::spawn(move || {
                // Not the C library's, which does it for all threads.
                let id = u64::from(number);
                call(libc::SYS_setresuid, &[id, id, id]).unwrap();
                there.wait();
                pause();
            });
            ready.wait();
        }
        "hopping" => hop(number),
        "leftover" => leftover(number, rest[0]),
        other => panic!("{other}"),
    }
    println!("holds");
    std::thread::sleep(LONGEST);
}

fn become_it(number: u32) {
    let (uid, gid) = (Uid::from_raw(number), Gid::from_raw(number));
    setgroups(&[]).unwrap();
    setresgid(gid, gid, gid).unwrap();
    setresuid(uid, uid, uid).unwrap();
}

/// Is another process every moment: whoever has found it finds one that is gone.
fn hop(number: u32) -> ! {
    become_it(number);
    println!("holds");
    // Several: one of them is always just between two processes.
    for _ in 0..7 {
        // SAFETY: one thread.
        if unsafe { libc::fork() } == 0 {
            break;
        }
    }
    let end = Instant::now() + LONGEST;
    while Instant::now() < end {
        // SAFETY: one thread; the copy goes on with the loop.
        if unsafe { libc::fork() } > 0 {
            // SAFETY: ends the original.
            unsafe { libc::_exit(0) }
        }
    }
    std::process::exit(0)
}

/// Waits for a file of that uid's, in any process's root, whose name has `pattern` in it, and writes into it.
fn leftover(number: u32, pattern: &str) -> ! {
    become_it(number);
    println!("holds");
    let end = Instant::now() + LONGEST;
    while Instant::now() < end {
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            // Stores of tests are anywhere.
            let Ok(environment) = std::fs::read(process.path().join("environ")) else { continue };
            let out = environment.split(|byte| *byte == 0).find_map(|one| one.strip_prefix(b"out="));
            let Some(out) = out.map(|out| String::from_utf8_lossy(out).into_owned()) else { continue };
            if !out.contains(pattern) {
                continue;
            }
            let file = process.path().join("root").join(out.trim_start_matches('/'));
            let opened = std::fs::File::options().write(true).open(file);
            if opened.and_then(|file| file.write_all_at(b"trojan", 0)).is_ok() {
                eprintln!("leftover: wrote into {out}");
            }
        }
    }
    std::process::exit(0)
}
