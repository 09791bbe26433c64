//! What is of our platform and still not for us: it fails with the reason, or goes back to Nix.

use anyhow::Result;

use super::cases;
use crate::world::session::{Build, Session};

const FILE: &str = "refused.nix";
const FEATURES: &str = "nix-command ca-derivations impure-derivations recursive-nix";

cases! {
    SingleUser: floating_outputs, impure_derivations, recursive_nix, builtin_builders_go_back_to_nix;
}

fn refused(session: &Session, attribute: &str, says: &str) -> Result<()> {
    let build = Build::of(FILE, attribute).with(&["--option", "experimental-features", FEATURES]);
    session.build(&build)?.fails()?.says(says)?;
    Ok(())
}

fn floating_outputs(session: &mut Session) -> Result<()> {
    refused(session, "floating", "content-addressed")
}

fn impure_derivations(session: &mut Session) -> Result<()> {
    refused(session, "impure", "impure")
}

fn recursive_nix(session: &mut Session) -> Result<()> {
    refused(session, "recursive-nix", "recursive-nix")
}

fn builtin_builders_go_back_to_nix(session: &mut Session) -> Result<()> {
    let built = session.build(&Build::of(FILE, "fetchurl"))?.succeeds()?;
    session.sound(built.output()?)
}
