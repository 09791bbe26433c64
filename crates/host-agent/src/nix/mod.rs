//! Nix semantics: everything that is true of Nix and of no other part.
