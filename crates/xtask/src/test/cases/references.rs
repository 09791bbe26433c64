//! Checks on references: nobody but the hook makes them for outputs that a hook built.

use anyhow::Result;

use super::cases;
use crate::world::session::{Build, Session};

const FILE: &str = "references.nix";

cases! {
    Everywhere: what_is_not_allowed_fails;
    SingleUser: what_is_allowed_passes, structured_checks, discarded_references_are_not_recorded;
}

fn passes(session: &Session, attribute: &str) -> Result<()> {
    let built = session.build(&Build::of(FILE, attribute))?.succeeds()?;
    session.sound(built.output()?)
}

fn fails(session: &Session, attribute: &str, says: &str) -> Result<()> {
    session.build(&Build::of(FILE, attribute))?.fails_with(session.status_of_rejection())?.says(says)?;
    Ok(())
}

fn what_is_allowed_passes(session: &mut Session) -> Result<()> {
    for attribute in ["allowed", "allowed-itself", "not-disallowed", "allowed-requisites"] {
        passes(session, attribute)?;
    }
    Ok(())
}

fn what_is_not_allowed_fails(session: &mut Session) -> Result<()> {
    for attribute in ["not-allowed", "disallowed", "not-allowed-requisites", "disallowed-requisites"] {
        fails(session, attribute, "-ref-a")?;
    }
    Ok(())
}

fn structured_checks(session: &mut Session) -> Result<()> {
    passes(session, "checks-kept")?;
    fails(session, "checks-broken", "-ref-a")?;
    fails(session, "max-size", "1000")
}

fn discarded_references_are_not_recorded(session: &mut Session) -> Result<()> {
    if !session.nix_at_least(2, 14) {
        return Err(super::NotHere("unsafeDiscardReferences came with Nix 2.14".into()).into());
    }
    let built = session.build(&Build::of(FILE, "discarded"))?.succeeds()?;
    session.refers_to(built.output()?, &[])
}
