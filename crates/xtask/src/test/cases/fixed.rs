//! Outputs whose contents are known before they are built.

use std::fs;
use std::io::Write;
use std::net::TcpListener;

use anyhow::{Result, ensure};

use super::cases;
use crate::world::limited;
use crate::world::session::{Build, Built, LIMIT, Session};

const FILE: &str = "fixed.nix";

cases! {
    Everywhere: right_hashes_pass, wrong_hashes_fail_and_say_both, impure_variables_are_given;
    SingleUser: flat_must_be_a_plain_file, references_are_refused, a_consumer_gets_them;
    LinuxGuest: the_network_is_there;
}

fn right_hashes_pass(session: &mut Session) -> Result<()> {
    for attribute in ["flat", "flat-md5", "flat-sha1", "flat-sha512", "recursive"] {
        let built = session.build(&Build::of(FILE, attribute))?.succeeds()?;
        session.sound(built.output()?)?;
        session.refers_to(built.output()?, &[])?;
    }
    Ok(())
}

fn wrong_hashes_fail_and_say_both(session: &mut Session) -> Result<()> {
    for attribute in ["flat-wrong", "recursive-wrong"] {
        let built = session.build(&Build::of(FILE, attribute))?.fails_with(session.status_of_wrong_hash())?;
        // Tools parse these.
        built
            .says("hash mismatch in fixed-output derivation '/nix/store/")?
            .says("specified: sha256-")?
            .says("got:    sha256-")?;
    }
    Ok(())
}

fn flat_must_be_a_plain_file(session: &mut Session) -> Result<()> {
    for attribute in ["flat-executable", "flat-directory"] {
        session
            .build(&Build::of(FILE, attribute))?
            .fails_with(session.status_of_fixed_failure())?
            .says("regular")?;
    }
    Ok(())
}

fn references_are_refused(session: &mut Session) -> Result<()> {
    session
        .build(&Build::of(FILE, "referring"))?
        .fails_with(session.status_of_fixed_failure())?
        .says("-fixed-input")?;
    Ok(())
}

fn a_consumer_gets_them(session: &mut Session) -> Result<()> {
    let built = session.build(&Build::of(FILE, "consumer"))?.succeeds()?;
    ensure!(fs::read(built.output()?)? == b"hello\nhello\n", "contents");
    Ok(())
}

fn impure_variables_are_given(session: &mut Session) -> Result<()> {
    if session.world.mode == crate::world::Mode::Daemon {
        // They come from the environment of the daemon there, which has no such variable.
        session.build(&Build::of(FILE, "impure-variables"))?.fails()?.says("hash mismatch")?;
        return Ok(());
    }
    let mut command = session.build_command(&Build::of(FILE, "impure-variables"));
    Built::from(limited::run(command.env("FROM_OUTSIDE", "seen"), LIMIT)?).succeeds()?;
    Ok(())
}

fn the_network_is_there(session: &mut Session) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(1).flatten() {
            let _ = { stream }.write_all(b"hello\n");
        }
    });
    session.build(&Build::of(FILE, "network").with(&["--argstr", "port", &port]))?.succeeds()?;
    Ok(())
}
