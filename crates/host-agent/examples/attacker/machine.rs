//! Attacks on the machine itself: what is root's alone, and what a process that asks nicely might be given.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::call::{
    all_procs, call, enter_user_namespace, in_child, own_proc, pointer, tell, tell_io, tell_word,
};

/// Zero's: harmless where it can be opened (null(4)).
const ZERO: u64 = (1 << 8) | 5;

pub fn attack(words: &[&str]) {
    match words {
        ["devices", planted @ ..] => devices(planted),
        ["time"] => time(),
        ["settings"] => settings(""),
        ["settings-in-user-namespace"] => {
            let ended = in_child(|| {
                let all = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS;
                let entered = enter_user_namespace(all);
                tell("enter", entered);
                settings("/kernel");
                0
            });
            tell_word("namespace", ended);
        }
        ["memory-score"] => memory_score(),
        ["terminal"] => terminal(),
        ["root"] => root(),
        ["rights"] => rights(),
        _ => panic!("{words:?}"),
    }
}

/// Makes nodes, and opens those that are named, which somebody else has made.
fn devices(planted: &[&str]) {
    for directory in ["/build", "/tmp", "/dev/shm"] {
        for (kind, what) in [(libc::S_IFCHR, "character"), (libc::S_IFBLK, "block")] {
            let path = Path::new(directory).join(format!("node-{what}"));
            let made = call(libc::SYS_mknod, &[pointer(path), u64::from(kind) | 0o666, ZERO]);
            tell(format!("make-{what}-in-{directory}"), made);
        }
    }
    for path in planted {
        tell_io(format!("open-{path}"), fs::File::open(path));
    }
    for name in [
        "mem",
        "kmem",
        "port",
        "kmsg",
        "kvm",
        "fuse",
        "net/tun",
        "loop0",
        "loop-control",
        "sda",
        "vda",
        "console",
        "tty0",
        "vsock",
        "userfaultfd",
    ] {
        let options =
            fs::File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).to_owned();
        tell_io(format!("open-{name}"), options.open(Path::new("/dev").join(name)));
    }
}

/// Sets it to what it is.
fn time() {
    let mut now = [0_u64; 2];
    let now_at = now.as_mut_ptr() as u64;
    call(libc::SYS_clock_gettime, &[libc::CLOCK_REALTIME as u64, now_at]).unwrap();
    tell("clock-set", call(libc::SYS_clock_settime, &[libc::CLOCK_REALTIME as u64, now_at]));
    let day = [now[0], now[1] / 1000];
    tell("day-set", call(libc::SYS_settimeofday, &[day.as_ptr() as u64, 0]));
    let zone = [0_u32; 2];
    tell("zone-set", call(libc::SYS_settimeofday, &[0, zone.as_ptr() as u64]));
    // SAFETY: all-zero is a valid timex, which asks only.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    call(libc::SYS_adjtimex, &[(&raw mut timex) as u64]).unwrap();
    let set = libc::timex { modes: libc::ADJ_TICK, ..timex };
    let timex_at = (&raw const set) as u64;
    tell("adjust", call(libc::SYS_adjtimex, &[timex_at]));
    tell("clock-adjust", call(libc::SYS_clock_adjtime, &[libc::CLOCK_REALTIME as u64, timex_at]));
    tell_io("hardware-clock", fs::File::open("/dev/rtc0"));
}

/// Every file of /proc that is no process's. Told are those that can be opened to be written.
fn settings(below: &str) {
    let mut tried = 0;
    for proc in all_procs() {
        let start = if below.is_empty() {
            proc.clone()
        } else {
            proc.join("sys").join(below.trim_start_matches('/'))
        };
        let mut directories = vec![start];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                let Ok(kind) = entry.file_type() else { continue };
                let path = entry.path();
                let is_process =
                    directory == proc && entry.file_name().as_encoded_bytes()[0].is_ascii_digit();
                if kind.is_dir() && !is_process {
                    directories.push(path);
                } else if kind.is_file() {
                    tried += 1;
                    let opened = fs::File::options().write(true).custom_flags(libc::O_NONBLOCK).open(&path);
                    if opened.is_ok() {
                        tell_word("writable", path.display());
                    }
                }
            }
        }
    }
    tell_word("tried", tried);
    tell_io("core-pattern", fs::write("/proc/sys/kernel/core_pattern", "|/build/x"));
    tell_io("module-path", fs::write("/proc/sys/kernel/modprobe", "/build/x"));
    tell_io("sysrq", fs::write("/proc/sysrq-trigger", "h"));
    tell_io("devices-of-the-kernel", fs::read_dir("/sys/kernel"));
}

fn memory_score() {
    let own = Path::new("/proc/self/oom_score_adj");
    let score = fs::read_to_string(own).unwrap();
    tell_word("score", score.trim());
    for lower in ["-1", "-500", "-1000"] {
        tell_io(format!("lower-to{lower}"), fs::write(own, lower));
    }
    tell_io("raise", fs::write(own, "500"));
    tell_io("lower-again", fs::write(own, score.trim()));
    tell_io("old-way", fs::write("/proc/self/oom_adj", "-17"));
    tell_word("score-at-last", fs::read_to_string(own).unwrap().trim());
}

/// Types into every terminal that can be had.
fn terminal() {
    const TIOCSTI: u64 = 0x5412;
    const TIOCSCTTY: u64 = 0x540e;
    const TIOCCONS: u64 = 0x541d;
    tell_io("controlling", fs::File::open("/dev/tty"));
    let mut found: Vec<(String, u64)> =
        (0..10).map(|descriptor| (format!("descriptor-{descriptor}"), descriptor)).collect();
    let pseudo = fs::read_dir("/dev/pts").into_iter().flatten().flatten().map(|entry| entry.path());
    for path in
        pseudo.chain(["/dev/tty", "/dev/console", "/dev/tty0", "/dev/tty1", "/dev/ttyS0"].map(Into::into))
    {
        let opened = call(
            libc::SYS_open,
            &[pointer(&path), (libc::O_RDWR | libc::O_NONBLOCK | libc::O_NOCTTY) as u64],
        );
        if let Ok(opened) = opened {
            found.push((path.display().to_string(), opened as u64));
        }
    }
    for (name, descriptor) in found {
        for stolen in [false, true] {
            if stolen {
                tell(format!("steal-{name}"), call(libc::SYS_ioctl, &[descriptor, TIOCSCTTY, 1]));
            }
            for byte in *b"typed\n" {
                let typed = call(libc::SYS_ioctl, &[descriptor, TIOCSTI, (&raw const byte) as u64]);
                if byte == b'\n' {
                    tell(format!("type-{name}"), typed);
                }
            }
        }
        tell(format!("console-{name}"), call(libc::SYS_ioctl, &[descriptor, TIOCCONS]));
    }
}

/// What the kernel says of this process's rights (proc_pid_status(5)).
fn rights() {
    let status = fs::read_to_string(own_proc().join("self/status")).unwrap();
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Groups"] {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        tell_word(name, format!("={}", value.trim()));
    }
}

/// Calls that are root's. Where they succeed they change nothing, or what ends with this process.
fn root() {
    let text = pointer("x");
    let zeros = [0_u64; 32];
    let zeros = zeros.as_ptr() as u64;
    let unlimited = [u64::MAX; 2];
    let version_3_and_self = [0x2008_0522_u64, 0];
    let all = [u32::MAX; 6];
    let calls: &[(&str, libc::c_long, &[u64])] = &[
        ("set-uid", libc::SYS_setuid, &[0]),
        ("set-resuid", libc::SYS_setresuid, &[0, 0, 0]),
        ("set-gid", libc::SYS_setgid, &[0]),
        ("set-groups", libc::SYS_setgroups, &[1, zeros]),
        ("capabilities", libc::SYS_capset, &[version_3_and_self.as_ptr() as u64, all.as_ptr() as u64]),
        ("mount", libc::SYS_mount, &[text, pointer("/build"), pointer("tmpfs"), 0, 0]),
        ("mount-namespace", libc::SYS_unshare, &[libc::CLONE_NEWNS as u64]),
        ("pid-namespace", libc::SYS_unshare, &[libc::CLONE_NEWPID as u64]),
        ("net-namespace", libc::SYS_unshare, &[libc::CLONE_NEWNET as u64]),
        ("ipc-namespace", libc::SYS_unshare, &[libc::CLONE_NEWIPC as u64]),
        ("time-namespace", libc::SYS_unshare, &[libc::CLONE_NEWTIME as u64]),
        ("chroot", libc::SYS_chroot, &[pointer("/")]),
        ("host-name", libc::SYS_sethostname, &[text, 1]),
        ("domain-name", libc::SYS_setdomainname, &[text, 1]),
        ("reboot", libc::SYS_reboot, &[0xfee1_dead, 672_274_793, 0]),
        ("kexec", libc::SYS_kexec_load, &[0, 0, 0, 0]),
        ("module", libc::SYS_init_module, &[zeros, 8, text]),
        ("remove-module", libc::SYS_delete_module, &[pointer("none"), 0]),
        ("swap", libc::SYS_swapon, &[pointer("/build"), 0]),
        ("accounting", libc::SYS_acct, &[0]),
        ("quota", libc::SYS_quotactl, &[0x80_0001, 0, 0, zeros]),
        ("io-level", libc::SYS_iopl, &[3]),
        ("io-ports", libc::SYS_ioperm, &[0x80, 1, 1]),
        ("kernel-log", libc::SYS_syslog, &[7, 0, 0]),
        ("hang-up", libc::SYS_vhangup, &[]),
        ("priority", libc::SYS_setpriority, &[0, 0, -5_i64 as u64]),
        ("real-time", libc::SYS_sched_setscheduler, &[0, libc::SCHED_FIFO as u64, [1_u32].as_ptr() as u64]),
        ("processes", libc::SYS_prlimit64, &[0, libc::RLIMIT_NPROC.into(), unlimited.as_ptr() as u64, 0]),
        ("io-priority", libc::SYS_ioprio_set, &[1, 0, 1 << 13]),
        ("handle", libc::SYS_open_by_handle_at, &[libc::AT_FDCWD as u64, zeros, 0]),
        ("fanotify", libc::SYS_fanotify_init, &[0x4, 0]),
        ("new-mount", libc::SYS_fsopen, &[pointer("tmpfs"), 0]),
        ("seccomp-listener", libc::SYS_seccomp, &[1, 1 << 3, zeros]),
    ];
    for (what, number, arguments) in calls {
        tell(what, call(*number, arguments));
    }
}
