//! `host-agent status`.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use super::fail;
use crate::config::Config;
use crate::control::client::Client;
use crate::control::message::StatusReport;
use crate::plain_text;

/// Asks the daemon and prints what it says.
pub(super) fn run(config: &Config, json: bool) -> ExitCode {
    let report = match Client::connect(&config.socket, "status").and_then(|mut client| client.status()) {
        Ok(report) => report,
        Err(error) => return fail(&error),
    };
    if json {
        match serde_json::to_string_pretty(&report) {
            Ok(text) => println!("{}", plain_text::json(&text)),
            Err(error) => return fail(&error),
        }
    } else {
        print!("{}", render(&report));
    }
    ExitCode::SUCCESS
}

fn render(report: &StatusReport) -> String {
    let mut text = String::new();
    let state = if report.draining { "draining" } else { "ready" };
    // Writing to a String can't fail.
    let _ = writeln!(
        text,
        "darling-builder {} · {state} for {} · guest {} · {} jobs, {} may wait · pid {}, up {}",
        report.version,
        report.systems.join(", "),
        report.guest,
        report.max_jobs,
        report.queue_limit,
        report.pid,
        human(report.uptime),
    );
    let _ = writeln!(
        text,
        "builds so far: {} succeeded, {} failed, {} cancelled",
        report.succeeded, report.failed, report.cancelled
    );
    let _ = writeln!(text, "\nslots");
    if report.slots.is_empty() {
        let _ = writeln!(text, "  none");
    }
    for slot in &report.slots {
        let _ = writeln!(
            text,
            "  {:>4}  {:<8}  uid {}  {:>6} MiB  up {}{}",
            slot.id,
            slot.state,
            slot.uid,
            slot.memory_bytes >> 20,
            human(slot.age),
            slot.boot.map(|boot| format!("  booted in {} ms", boot.as_millis())).unwrap_or_default(),
        );
    }
    if let Some(ssh) = &report.ssh {
        let slot = ssh.slot.map_or("no slot yet".into(), |slot| format!("slot {slot}"));
        let unauthenticated = match ssh.unauthenticated {
            0 => String::new(),
            count => format!(", {count} logging in"),
        };
        let _ = writeln!(text, "\nssh on 127.0.0.1:{}, {slot}{unauthenticated}", ssh.port);
        if ssh.sessions.is_empty() {
            let _ = writeln!(text, "  no session");
        }
        for session in &ssh.sessions {
            let _ = writeln!(text, "  {:<8}  {}", session.user, human(session.age));
        }
    }
    let _ = writeln!(text, "\nbuilds");
    if report.builds.is_empty() {
        let _ = writeln!(text, "  none");
    }
    for build in &report.builds {
        let _ = writeln!(
            text,
            "  {}  {}{}  {}  {} bytes of log  by uid {} ({})",
            build.derivation.as_ref().map_or("(not named yet)", |name| name.as_str()),
            build.phase,
            build.slot.map(|slot| format!(" in slot {slot}")).unwrap_or_default(),
            human(build.age),
            build.log_bytes,
            build.uid,
            build.front_end,
        );
    }
    let _ = writeln!(text, "\nended");
    if report.recent.is_empty() {
        let _ = writeln!(text, "  none");
    }
    for build in &report.recent {
        let _ = writeln!(
            text,
            "  {}  {} {} ago  {}",
            build.derivation,
            build.fate,
            human(build.ago),
            build.timings,
        );
    }
    text
}

fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::message::{BuildStatus, EndedBuild, FrontEndName, SlotStatus, SshSession, SshStatus};
    use crate::request::PhaseTimings;
    use crate::store_path::StoreName;

    #[test]
    fn shows_slots_and_builds() {
        let report = StatusReport {
            version: "0.1.0".into(),
            pid: 77,
            uptime: Duration::from_secs(90061),
            guest: "linux".into(),
            systems: vec!["x86_64-darwin".into()],
            max_jobs: 2,
            queue_limit: 64,
            draining: false,
            succeeded: 3,
            failed: 1,
            cancelled: 0,
            slots: vec![SlotStatus {
                id: 4,
                uid: 2_000_000_000,
                state: "busy".into(),
                age: Duration::from_secs(65),
                boot: Some(Duration::from_millis(12)),
                memory_bytes: 45 << 20,
            }],
            builds: vec![BuildStatus {
                derivation: StoreName::parse(b"0c6fdckjcpd2wkbgzp1lnhaiz8m7gr5j-hello.drv").ok(),
                front_end: FrontEndName::made_of("build-hook"),
                uid: 0,
                slot: Some(4),
                phase: "building".into(),
                age: Duration::from_secs(3700),
                log_bytes: 1234,
            }],
            recent: vec![EndedBuild {
                derivation: StoreName::parse(b"0c6fdckjcpd2wkbgzp1lnhaiz8m7gr5j-hello.drv").unwrap(),
                fate: "succeeded".into(),
                ago: Duration::from_secs(12),
                timings: PhaseTimings {
                    preparing: Duration::from_micros(2900),
                    building: Duration::from_millis(1234),
                    ..PhaseTimings::default()
                },
                log_bytes: 99,
            }],
            ssh: Some(SshStatus {
                port: 2222,
                slot: Some(5),
                unauthenticated: 1,
                sessions: vec![SshSession { user: "builder".into(), age: Duration::from_secs(61) }],
            }),
        };
        insta::assert_snapshot!(render(&report), @"
        darling-builder 0.1.0 · ready for x86_64-darwin · guest linux · 2 jobs, 64 may wait · pid 77, up 1 d 1 h
        builds so far: 3 succeeded, 1 failed, 0 cancelled

        slots
             4  busy      uid 2000000000      45 MiB  up 1 min 5 s  booted in 12 ms

        ssh on 127.0.0.1:2222, slot 5, 1 logging in
          builder   1 min 1 s

        builds
          0c6fdckjcpd2wkbgzp1lnhaiz8m7gr5j-hello.drv  building in slot 4  1 h 1 min  1234 bytes of log  by uid 0 (build-hook)

        ended
          0c6fdckjcpd2wkbgzp1lnhaiz8m7gr5j-hello.drv  succeeded 12 s ago  preparing 2.9 ms, building 1234.0 ms
        ");
    }
}
