//! Development tasks, one module a command.

fn main() {}
