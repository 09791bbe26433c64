//! Attributes that decide what a builder sees: the same derivation, built locally for Linux by the same Nix, has seen
//! the same.

use anyhow::Result;

use super::cases;
use super::same_as_local::assert_same;
use crate::world::session::{Build, Session};

const FILE: &str = "attributes.nix";

cases! {
    LinuxGuest: pass_as_file, placeholders, structured_attributes, references_graph, structured_references_graph;
    SingleUser: a_graph_of_what_is_no_input_is_refused;
}

fn pass_as_file(session: &mut Session) -> Result<()> {
    assert_same(session, FILE, "pass-as-file")
}

fn placeholders(session: &mut Session) -> Result<()> {
    assert_same(session, FILE, "placeholders")
}

fn structured_attributes(session: &mut Session) -> Result<()> {
    assert_same(session, FILE, "structured")
}

fn references_graph(session: &mut Session) -> Result<()> {
    assert_same(session, FILE, "graph")
}

fn structured_references_graph(session: &mut Session) -> Result<()> {
    assert_same(session, FILE, "structured-graph")
}

fn a_graph_of_what_is_no_input_is_refused(session: &mut Session) -> Result<()> {
    session.build(&Build::of(FILE, "graph-of-stranger"))?.fails()?.says("-graph-three")?;
    Ok(())
}
