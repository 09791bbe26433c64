//! `host-agent oracle`: builds again what is built, and says whether it is the same.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::say;
use crate::nix::oracle::known::KnownList;
use crate::nix::oracle::rebuild::Rebuild;
use crate::nix::oracle::verdict::{Judged, Verdict, judge};
use crate::nix::oracle::{installable, report};
use crate::nix::store_command::NixProgram;
use crate::plain_text;

const AFTER_HELP: &str = "Exit status: 0 all match, or differ as is known; 1 some differ; 2 none differs, but some \
can't be built; 3 some could not be compared, or the command line can't be followed.";

/// Flags of `oracle`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct OracleFlags {
    /// What to build again: `.drv` files, paths in the store, or installables such as `nixpkgs#hello`
    #[arg(required = true, value_name = "INSTALLABLE")]
    installables: Vec<OsString>,
    /// The installables are attributes of this file
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What is known to be non-deterministic, with reasons (TOML, see docs/oracle.md)
    #[arg(long, value_name = "FILE")]
    known: Option<PathBuf>,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
    /// Do not ask diffoscope about what differs
    #[arg(long)]
    no_diffoscope: bool,
    /// Show what Nix and the builders print
    #[arg(short = 'L', long)]
    print_build_logs: bool,
    /// Options for `nix-store --realise`
    #[arg(last = true, value_name = "OPTION")]
    options: Vec<OsString>,
}

/// Judges one after the other; text as it becomes known, JSON at the end.
pub(super) fn run(flags: &OracleFlags) -> ExitCode {
    let known = match flags.known.as_deref().map(KnownList::load).transpose() {
        Ok(known) => known.unwrap_or_default(),
        Err(error) => {
            say(&error);
            return ExitCode::from(report::NOT_COMPARED);
        }
    };
    let nix = NixProgram::on_path();
    let rebuild = Rebuild { nix: &nix, options: &flags.options, show: flags.print_build_logs };
    let mut all = Vec::new();
    let mut tell = |judged: Judged| {
        if !flags.json {
            // What builders have made is part of it.
            print!("{}", plain_text::lines(&report::render(&judged)));
        }
        all.push(judged);
    };
    for name in &flags.installables {
        match installable::derivations(&nix, name, flags.file.as_deref()) {
            Ok(derivations) => {
                for derivation in derivations {
                    tell(judge(&rebuild, &known, &derivation, !flags.no_diffoscope));
                }
            }
            Err(error) => {
                let verdict = Verdict::NotCompared { reason: error.to_string() };
                tell(Judged { derivation: name.into(), verdict });
            }
        }
    }
    if flags.json {
        match serde_json::to_string_pretty(&all) {
            Ok(text) => println!("{}", plain_text::json(&text)),
            Err(error) => {
                say(&error);
                return ExitCode::from(report::NOT_COMPARED);
            }
        }
    } else {
        println!("{}", report::summary(&all));
    }
    ExitCode::from(report::exit_status(&all))
}
