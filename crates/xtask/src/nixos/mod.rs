//! The NixOS module, where there is no NixOS: real Nix evaluates it against the stand-in in `nixos/tests/lib`.
//!
//! - [`instantiate`]: nix-instantiate of any version, without a store.
//! - [`options_page`]: `cargo xtask nixos-options`.

pub mod instantiate;
pub mod options_page;

#[cfg(test)]
mod tests;
