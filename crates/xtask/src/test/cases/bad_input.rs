//! Bad input gets one clear error that says what to do, and nothing is lost.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::cases;
use crate::world::daemon::{self, HOOK, SOCKET};
use crate::world::limited;
use crate::world::session::{Build, Session};

cases! {
    SingleUser: unknown_configuration_key, socket_path_too_long, not_root, no_namespaces, missing_configuration,
        a_second_daemon, garbage_on_the_socket, garbage_for_the_hook, the_hook_by_hand;
}

const LIMIT: Duration = Duration::from_secs(10);

/// Runs `host-agent daemon` with this configuration; it must fail with one error that contains all of `says`.
fn daemon_refuses(session: &Session, configuration: &str, says: &[&str]) -> Result<()> {
    let file = "/run/darling-builder/bad.toml";
    fs::write(file, configuration)?;
    let mut command = Command::new(daemon::program(&session.world));
    refuses(command.args(["daemon", "--config", file]), says)
}

fn refuses(command: &mut Command, says: &[&str]) -> Result<()> {
    let finished = limited::run(command, LIMIT)?;
    let text = String::from_utf8_lossy(&finished.stderr).into_owned();
    ensure!(!finished.status.success() && !finished.timed_out, "expected a refusal: {}", finished.describe());
    for part in says {
        ensure!(text.contains(part), "expected {part:?} in: {}", finished.describe());
    }
    ensure!(!text.contains("panicked"), "{}", finished.describe());
    ensure!(text.lines().count() <= 8, "more than one clear error: {}", finished.describe());
    Ok(())
}

fn unknown_configuration_key(session: &mut Session) -> Result<()> {
    daemon_refuses(session, "max-job = 3\n", &["bad.toml", "max-job", "max-jobs"])
}

fn socket_path_too_long(session: &mut Session) -> Result<()> {
    let path = format!("/run/{}", "long/".repeat(30));
    daemon_refuses(session, &format!("socket = \"{path}sock\"\n"), &["107", "socket"])
}

fn missing_configuration(session: &mut Session) -> Result<()> {
    let mut command = Command::new(daemon::program(&session.world));
    refuses(
        command.args(["daemon", "--config", "/no/such/file.toml"]),
        &["/no/such/file.toml", "No such file"],
    )
}

fn not_root(session: &mut Session) -> Result<()> {
    let mut command = Command::new(daemon::program(&session.world));
    refuses(command.args(["daemon", "--config", daemon::CONFIG]).uid(1000).gid(1000), &["root"])
}

fn no_namespaces(session: &mut Session) -> Result<()> {
    let text = fs::read_to_string(daemon::CONFIG)?.replace(SOCKET, "/run/darling-builder/second.sock");
    let text = text.replace(daemon::STATE, "/nix/var/second");
    fs::write("/run/darling-builder/second.toml", format!("{text}\nuid-base = 2100000000\n"))?;
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--"])
        .arg(daemon::program(&session.world));
    let result =
        refuses(command.args(["daemon", "--config", "/run/darling-builder/second.toml"]), &["namespace"]);
    let _ = fs::remove_dir_all("/nix/var/second");
    result
}

fn a_second_daemon(session: &mut Session) -> Result<()> {
    let mut command = Command::new(daemon::program(&session.world));
    refuses(command.args(["daemon", "--config", daemon::CONFIG]), &["another darling-builder daemon"])?;
    // The first one works on.
    daemon::status(&session.world)?;
    Ok(())
}

fn garbage_on_the_socket(session: &mut Session) -> Result<()> {
    let frames: [(&str, Vec<u8>); 5] = [
        ("truncated", vec![16, 0, 0, 0, 1, 2]),
        ("oversized", vec![0xff, 0xff, 0xff, 0xff, 0]),
        ("malformed", [&[8, 0, 0, 0][..], &[0xee; 8]].concat()),
        ("text", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("empty", Vec::new()),
    ];
    for (name, bytes) in frames {
        let mut stream = UnixStream::connect(SOCKET).with_context(|| name.to_owned())?;
        stream.set_read_timeout(Some(LIMIT))?;
        // It may have been closed by then.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => {
                return Err(error).with_context(|| format!("{name}: the daemon keeps the connection"));
            }
        }
        daemon::status(&session.world).with_context(|| format!("after {name}"))?;
    }
    let next = session.build(&Build::of("cancel.nix", "next"))?.succeeds()?;
    let mut delete = session.root_command("nix-store");
    limited::run(delete.arg("--delete").arg(next.output()?), LIMIT)?.must_succeed()?;
    Ok(())
}

fn garbage_for_the_hook(_session: &mut Session) -> Result<()> {
    for garbage in
        [&b"\x01"[..], &[0xff; 64], &[1, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]]
    {
        let mut child = Command::new(HOOK)
            .arg("3")
            .env("DARLING_BUILDER_CONFIG", daemon::CONFIG)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        let _ = stdin.write_all(garbage);
        drop(stdin);
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "it succeeded on {garbage:?}");
        ensure!(
            !text.is_empty() && !text.contains("panicked") && text.lines().count() <= 3,
            "it said {text:?}"
        );
    }
    Ok(())
}

fn the_hook_by_hand(session: &mut Session) -> Result<()> {
    let _ = session;
    refuses(Command::new(HOOK).env("DARLING_BUILDER_CONFIG", daemon::CONFIG), &["build-hook"])
}
