//! `darwin-agent`: runs one build's process inside the guest and streams its output to the host.

fn main() {}
