//! What a builder leaves, and what becomes of it in the store.

use anyhow::Result;

use super::cases;
use crate::world::session::{Build, Session};

cases! {
    Everywhere: x;
}

fn x(session: &mut Session) -> Result<()> {
    session.build(&Build::of("outputs.nix", "several"))?.succeeds()?;
    Ok(())
}
