//! Nix semantics: what Nix says, what a derivation means, and what makes an output valid.
//!
//! Two front ends: the build hook, which does by itself what Nix does after a local build, and the external builder
//! ([`external_builder`]), which leaves that to Nix. The hook's way, in the order of the modules:
//!
//! - [`descriptors`], [`wire`], [`settings`], [`question`], [`reply`], [`activity`]: the words between Nix and a hook.
//! - [`aterm`], [`derivation`], [`attributes`]: what a `.drv` file says.
//! - [`judgement`], [`chain`]: whose it is, and Nix's own hook for what is not ours.
//! - [`environment`], [`structured_attrs`], [`references_graph`], [`placeholder`], [`build_request`]: what the builder
//!   sees.
//! - [`output_checks`], [`depth`], [`take`], [`register`]: from built to valid.
//! - [`store_command`], [`closure`]: the building Nix's own commands, and what its database knows.
//! - [`hook`], [`accepted`], [`failure`]: the flow, and how its end is told.
//!
//! Beside it, for the user: [`conf`], the settings that make Nix use this builder; [`oracle`], building again to compare.

pub mod accepted;
pub mod activity;
pub mod aterm;
pub mod attributes;
pub mod build_request;
pub mod chain;
pub mod closure;
pub mod compact_json;
pub mod conf;
pub mod depth;
pub mod derivation;
pub mod descriptors;
pub mod environment;
pub mod external_builder;
pub mod failure;
pub mod hook;
pub mod judgement;
pub mod oracle;
pub mod output_checks;
pub mod placeholder;
pub mod question;
pub mod references_graph;
pub mod register;
pub mod reply;
pub mod settings;
pub mod store_command;
pub mod structured_attrs;
pub mod take;
pub mod text_encoding;
pub mod wire;
