//! What a builder prints arrives, live, whole and unchanged.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::cases;
use crate::world::limited;
use crate::world::session::{Build, Built, Session};

const FILE: &str = "logs.nix";

cases! {
    Everywhere: lines_are_shown_and_stored, nothing_is_lost_at_the_end;
    SingleUser: lines_arrive_while_the_builder_runs, two_hundred_megabytes, a_line_of_ten_megabytes, progress_bars,
        lines_for_nix_are_not_trusted, a_last_line_without_newline, bytes_stay_as_they_are, streams_keep_their_order;
}

/// Builds it and returns the stored log.
fn log_of(session: &Session, attribute: &str) -> Result<(Built, Vec<u8>)> {
    let build = Build::of(FILE, attribute);
    let built = session.build(&build)?.succeeds()?;
    let log = session.log(&session.instantiate(&build)?)?;
    Ok((built, log))
}

fn lines_are_shown_and_stored(session: &mut Session) -> Result<()> {
    let (built, log) = log_of(session, "lines")?;
    let expected: String = (0..100).map(|n| format!("line {n}\n")).collect();
    ensure!(log == expected.as_bytes(), "stored: {}", String::from_utf8_lossy(&log));
    built.says("line 0\n")?.says("line 99\n")?;
    Ok(())
}

fn lines_arrive_while_the_builder_runs(session: &mut Session) -> Result<()> {
    let build = Build::of("failures.nix", "endless").with(&["--timeout", "3"]);
    let started = Instant::now();
    let mut running = limited::start(&mut session.build_command(&build))?;
    let seen = limited::wait_until(Duration::from_secs(2), || {
        let text = running.stderr_so_far()?;
        Ok(String::from_utf8_lossy(&text).matches("tick").count() >= 3)
    })?;
    let after = started.elapsed();
    running.finish(Duration::from_secs(20))?;
    ensure!(seen, "no three lines after {after:?}");
    Ok(())
}

fn nothing_is_lost_at_the_end(session: &mut Session) -> Result<()> {
    let (_, log) = log_of(session, "burst")?;
    ensure!(log.len() == 60009 && log.ends_with(b"y\nthe end\n"), "{} of 60009 bytes", log.len());
    Ok(())
}

fn two_hundred_megabytes(session: &mut Session) -> Result<()> {
    let build = Build::of(FILE, "huge").with(&["-Q", "--option", "compress-build-log", "false"]);
    session.build(&build.clone().within(Duration::from_secs(120)))?.succeeds()?;
    let log = session.log(&session.instantiate(&build)?)?;
    ensure!(log.len() == 200_000_000, "{} of 200000000 bytes", log.len());
    let line = [&[b'0'; 98][..], b"7\n"].concat();
    ensure!(log.chunks(100).all(|chunk| chunk == line), "a line is not as it was printed");
    Ok(())
}

fn a_line_of_ten_megabytes(session: &mut Session) -> Result<()> {
    let build = Build::of(FILE, "long-line").with(&["-Q"]);
    session.build(&build)?.succeeds()?;
    let log = session.log(&session.instantiate(&build)?)?;
    ensure!(log.len() == 10_000_001, "{} of 10000001 bytes", log.len());
    ensure!(log[..10_000_000].iter().all(|byte| *byte == b'x'), "not as it was printed");
    Ok(())
}

fn progress_bars(session: &mut Session) -> Result<()> {
    let (_, log) = log_of(session, "progress")?;
    let expected = "progress 10%\rprogress 50%\rprogress 100%\r\nall the way\n";
    ensure!(log == expected.as_bytes(), "stored: {:?}", String::from_utf8_lossy(&log));
    Ok(())
}

fn lines_for_nix_are_not_trusted(session: &mut Session) -> Result<()> {
    let (built, log) = log_of(session, "at-nix")?;
    ensure!(log.starts_with(b"@nix { \"action\": \"setPhase\""), "stored: {}", String::from_utf8_lossy(&log));
    let built = built.says("said by the builder")?.says("plain")?;
    ensure!(
        !String::from_utf8_lossy(&built.finished.stderr).contains("forged"),
        "{}",
        built.finished.describe()
    );
    Ok(())
}

fn a_last_line_without_newline(session: &mut Session) -> Result<()> {
    let (built, log) = log_of(session, "no-newline")?;
    ensure!(log == b"first\nlast without newline", "stored: {:?}", String::from_utf8_lossy(&log));
    built.says("last without newline")?;
    Ok(())
}

fn bytes_stay_as_they_are(session: &mut Session) -> Result<()> {
    let (_, log) = log_of(session, "bytes")?;
    ensure!(log == b"byte \xff and \x01 and \x1b[31mred\x1b[0m\n", "stored: {}", log.escape_ascii());
    Ok(())
}

fn streams_keep_their_order(session: &mut Session) -> Result<()> {
    let (_, log) = log_of(session, "both-streams")?;
    ensure!(log == b"one\ntwo\nthree\nfour\n", "stored: {:?}", String::from_utf8_lossy(&log));
    Ok(())
}
