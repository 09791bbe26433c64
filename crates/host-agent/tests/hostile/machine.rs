//! The machine itself is root's: its devices, its clock, its settings, its terminals.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::attack::{Attacker, Told, builders_root, first_processes, host, skipped};
use crate::harness::{Daemon, darling};

/// What everybody may open to write: watching how busy the machine is, which sets nothing, and a number that the kernel then takes
/// from nobody who has no rights.
const NO_SETTINGS: &[&str] =
    &["/pressure/io", "/pressure/cpu", "/pressure/memory", "/pressure/irq", "/sys/kernel/ns_last_pid"];

/// What else could be opened to be written.
fn writable(told: &Told) -> Vec<&str> {
    let written = told.attempts.iter().filter(|one| one.what == "writable").map(|one| &*one.came);
    written.filter(|path| !NO_SETTINGS.iter().any(|harmless| path.ends_with(harmless))).collect()
}

fn attack(what: &str) -> Told {
    let daemon = Daemon::start("warm-slots = 0");
    let told = Attacker::new(&daemon).run(&format!("cd /build; $attacker machine {what}; echo > $out"));
    assert!(told.is_built(), "{:?} {}", told.done.report, told.log());
    told
}

#[test]
fn no_device_is_made_and_one_that_is_there_is_not_opened() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start("warm-slots = 0");
    let attacker = Attacker::new(&daemon);
    let planted = ["/build/planted", "/tmp/planted", "/dev/shm/planted"];
    let script = format!(
        "echo ready; while [ ! -e /build/go ]; do sleep 0.05; done; $attacker machine devices {}; echo > $out",
        planted.join(" ")
    );
    let running = attacker.run_until(&attacker.request(&script), "ready");
    let root = builders_root(&daemon, "/build/go");
    for path in planted {
        // Of /dev/zero.
        let path = root.join(&path[1..]);
        host("mknod", &["-m", "666", path.to_str().unwrap(), "c", "1", "5"]);
        assert!(path.exists());
    }
    std::fs::write(root.join("build/go"), "").unwrap();
    let told = running.finish();
    assert!(told.is_built(), "{:?} {}", told.done.report, told.log());
    told.none_was_done_but(&[], 20);
    for directory in ["/build", "/tmp", "/dev/shm"] {
        assert_eq!(told.came_of(&format!("make-character-in-{directory}")), "EPERM");
        assert_eq!(told.came_of(&format!("make-block-in-{directory}")), "EPERM");
        assert_eq!(told.came_of(&format!("open-{directory}/planted")), "EACCES");
    }
}

#[test]
fn the_clock_is_not_set() {
    if skipped() {
        return;
    }
    let told = attack("time");
    told.none_was_done_but(&[], 6);
    for what in ["clock-set", "day-set", "zone-set", "adjust", "clock-adjust"] {
        assert_eq!(told.came_of(what), "EPERM");
    }
}

#[test]
fn no_setting_of_the_kernels_is_written_nor_where_it_sends_core_files() {
    if skipped() {
        return;
    }
    let told = attack("settings");
    told.none_was_done_but(&[], 4);
    assert!(writable(&told).is_empty(), "{:?}", writable(&told));
    assert!(told.came_of("tried").parse::<u32>().unwrap() > 100, "{}", told.log());
    assert_eq!(told.came_of("core-pattern"), "EACCES");

    let daemon = Daemon::start("warm-slots = 0\nallow-user-namespaces = true");
    let told = Attacker::new(&daemon).run("$attacker machine settings-in-user-namespace; echo > $out");
    assert_eq!(told.came_of("enter"), "done", "{}", told.log());
    told.none_was_done_but(&["enter"], 5);
    assert!(writable(&told).is_empty(), "{:?}", writable(&told));
}

#[test]
fn a_builder_takes_its_chance_when_memory_runs_out_even_of_a_daemon_that_is_spared() {
    if skipped() {
        return;
    }
    let daemon = Daemon::start_as("warm-slots = 0", None, |command| {
        // SAFETY: opens and writes a file between fork and exec.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(|| {
                // Not every root may.
                let _ = std::fs::write("/proc/self/oom_score_adj", "-500");
                Ok(())
            });
        }
    });
    let told = Attacker::new(&daemon).run("$attacker machine memory-score; echo > $out");
    let score =
        |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().to_owned();
    let daemons = score(&daemon.child.id().to_string());
    let wanted = if daemons == "-500" { "0".to_owned() } else { daemons };
    assert_eq!(told.came_of("score"), wanted, "{}", told.log());
    for lower in ["-1", "-500", "-1000"] {
        assert_eq!(told.came_of(&format!("lower-to{lower}")), "EACCES", "{}", told.log());
    }
    assert_eq!(told.came_of("old-way"), "EACCES");
    assert!(!told.came_of("score-at-last").starts_with('-'), "{}", told.log());
}

#[test]
fn nothing_is_typed_into_the_terminal_that_the_daemon_was_started_from() {
    if skipped() {
        return;
    }
    let pty = nix::pty::openpty(None, None).unwrap();
    let master = File::from(pty.master);
    fcntl(master.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let slave = pty.slave.try_clone().unwrap();
    let daemon = Daemon::start_as("warm-slots = 0", None, |command| {
        let slave = pty.slave.try_clone().unwrap();
        command
            .stdin(Stdio::from(pty.slave.try_clone().unwrap()))
            .stdout(Stdio::from(pty.slave.try_clone().unwrap()));
        // SAFETY: plain system calls between fork and exec.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(move || {
                nix::unistd::setsid()?;
                match libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
    });
    let told = Attacker::new(&daemon).run("$attacker machine terminal; echo > $out");
    assert!(told.is_built(), "{:?} {}", told.done.report, told.log());
    // Its own is that which its output goes to: whatever it types there it reads itself, and nobody else does.
    assert!(told.attempts.len() > 10, "{}", told.log());
    let console = |one: &&crate::attack::Attempt| one.what.starts_with("console-") && one.came == "done";
    assert!(!told.attempts.iter().any(|one| console(&one)), "{}", told.log());
    let mut waiting = 0_i32;
    // SAFETY: the kernel writes one int.
    #[allow(unsafe_code)]
    let asked = unsafe { libc::ioctl(slave.as_raw_fd(), libc::FIONREAD, &raw mut waiting) };
    assert_eq!((asked, waiting), (0, 0));
    let mut echoed = [0; 64];
    let seen = (&master).read(&mut echoed);
    assert!(seen.is_err(), "{:?}", String::from_utf8_lossy(&echoed));
    // Nor does anything in the slot have it.
    let [daemon_session] =
        [nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(daemon.child.id() as i32))).unwrap()];
    assert_eq!(daemon_session.as_raw() as u32, daemon.child.id());
}

#[test]
fn no_process_of_a_slot_has_the_terminal_that_the_daemon_was_started_from() {
    if skipped() {
        return;
    }
    let pty = nix::pty::openpty(None, None).unwrap();
    let daemon = Daemon::start_as("warm-slots = 0", None, |command| {
        let slave = pty.slave.try_clone().unwrap();
        // SAFETY: plain system calls between fork and exec.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(move || {
                nix::unistd::setsid()?;
                libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
    });
    // Field 7 of proc_pid_stat(5).
    let terminal = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(4).unwrap().to_owned()
    };
    let daemons = terminal(daemon.child.id());
    assert_ne!(daemons, "0");
    let attacker = Attacker::new(&daemon);
    let _running = attacker.run_until(&attacker.request("echo on; sleep 60"), "on");
    let processes: Vec<u32> = daemon
        .slot_processes()
        .iter()
        .map(|one| one.0)
        .chain(first_processes(&daemon))
        .map(|pid| pid as u32)
        .collect();
    assert!(processes.len() >= 3, "{processes:?}");
    for pid in processes {
        assert_ne!(terminal(pid), daemons, "{pid}");
    }
}

#[test]
fn a_builder_has_no_rights_and_no_way_to_any() {
    if skipped() {
        return;
    }
    let told = attack("rights");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(told.came_of(set), "=0000000000000000", "{set}");
    }
    // Darling's server needs some until it has given them up, and no_new_privs keeps the builder from what is left.
    if !darling() {
        assert_eq!(told.came_of("CapBnd"), "=0000000000000000");
    }
    assert_eq!(
        (told.came_of("NoNewPrivs"), told.came_of("Seccomp"), told.came_of("Groups")),
        ("=1", "=2", "=")
    );
}

#[test]
fn what_is_roots_alone_is_refused() {
    if skipped() {
        return;
    }
    attack("root").none_was_done_but(&[], 30);
}
