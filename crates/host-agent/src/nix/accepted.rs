//! An accepted build, from Nix's order to registered outputs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::activity;
use super::build_request::build_request;
use super::closure::Closure;
use super::depth;
use super::derivation::{Derivation, Output};
use super::descriptors::BuildLog;
use super::failure::Failure;
use super::output_checks;
use super::question::Order;
use super::register::{Registrar, Registration};
use super::settings::Settings;
use super::store_command::NixProgram;
use super::take;
use crate::config::Config;
use crate::control::client::{BuildEvent, Client};
use crate::request::{BuildOutcome, BuildPhase, BuildReport, BuildRequest, PreparedOutput};
use crate::store_path::StoreName;

/// What a build needs of the hook.
#[derive(Debug)]
pub struct Accepted<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// Nix's settings.
    pub settings: &'a Settings,
    /// The Nix that asked.
    pub nix: &'a NixProgram,
    /// What is built.
    pub derivation: &'a Derivation,
    /// The registration, started already unless the build has to wait.
    pub registrar: Option<Registrar>,
    /// Where its output goes.
    pub log: &'a mut BuildLog,
}

/// Why a build ended without its outputs.
#[derive(Debug)]
pub enum Ended {
    /// This is to be told.
    Failed {
        /// Why.
        failure: Box<Failure>,
        /// Where the build directory was kept.
        kept: Option<PathBuf>,
    },
    /// Nix does not read any more.
    NixIsGone,
}

impl<F: Into<Failure>> From<F> for Ended {
    fn from(failure: F) -> Self {
        Ended::Failed { failure: Box::new(failure.into()), kept: None }
    }
}

impl Accepted<'_> {
    /// Builds, checks, moves and registers.
    pub fn run(mut self, order: &Order, mut client: Client) -> Result<(), Ended> {
        let store = &self.config.store_directory;
        let request = build_request(self.derivation, order, self.settings, store, self.nix)
            .map_err(|error| Failure::Request { derivation: self.derivation_path(), error })?;
        client.submit(&request)?;
        let report = self.watch(&mut client)?;
        let limits = request.limits.stricter(self.config.limits.of_a_build());
        let path_of = |name: &str| self.derivation.outputs.get(name).and_then(Output::path).cloned();
        let failure = Failure::of_outcome(&report.outcome, store, &self.derivation.path, path_of, &limits);
        match failure {
            Some(failure) => {
                let kept = report.kept.map(|kept| kept.as_path().to_owned());
                Err(Ended::Failed { failure: Box::new(failure), kept })
            }
            // The connection stays open until here: the daemon removes what is staged when it closes.
            None => self.publish(&request, report).inspect(|()| drop(client)),
        }
    }

    /// Passes the build's output on until it has ended.
    fn watch(&mut self, client: &mut Client) -> Result<BuildReport, Ended> {
        let mut waited = false;
        loop {
            let written = match client.next_event()? {
                BuildEvent::Output(bytes) => self.log.write(&bytes),
                BuildEvent::Note(line) => self.log.write_line(line.as_bytes()),
                BuildEvent::Finished(report) => return Ok(*report),
                BuildEvent::Phase(BuildPhase::Queued(ahead)) => {
                    waited = true;
                    self.show_phase(&format!("waiting for a slot ({ahead} ahead)"))
                }
                BuildEvent::Phase(phase) => {
                    // Not before: builds that wait would each keep a process waiting with them.
                    if self.registrar.is_none() {
                        self.registrar = Some(Registrar::start(self.nix)?);
                    }
                    if waited && matches!(phase, BuildPhase::Building) {
                        self.show_phase("building")
                    } else {
                        Ok(())
                    }
                }
            };
            written.map_err(|_| Ended::NixIsGone)?;
        }
    }

    fn show_phase(&mut self, name: &str) -> io::Result<()> {
        self.log.write_line(activity::phase(name).trim_ascii_end())
    }

    fn publish(mut self, request: &BuildRequest, report: BuildReport) -> Result<(), Ended> {
        let BuildOutcome::Built(mut outputs) = report.outcome else { return Ok(()) };
        let store = &self.config.store_directory;
        agree(request, &outputs)
            .map_err(|reason| Failure::Infrastructure { derivation: self.derivation_path(), reason })?;
        output_checks::discard_references(self.derivation, &mut outputs).map_err(Failure::from)?;
        let closure = if output_checks::needs_closure(self.derivation).map_err(Failure::from)? {
            Closure::query(self.nix, store, &request.inputs.iter().cloned().collect())?
        } else {
            Closure::default()
        };
        output_checks::check_outputs(self.derivation, &outputs, &closure, store).map_err(Failure::from)?;
        for output in &outputs {
            depth::check(output, self.nix, store)?;
        }
        let registrar = match self.registrar.take() {
            Some(registrar) => registrar,
            None => Registrar::start(self.nix)?,
        };
        take_all(&outputs, store)?;
        let registrations: Vec<_> = outputs
            .iter()
            .map(|output| Registration {
                path: output.path.clone(),
                nar_sha256: output.nar_sha256,
                nar_size: output.nar_size,
                references: output.references.clone(),
            })
            .collect();
        registrar.register(store, &self.derivation.path, &registrations).map_err(|error| {
            put_back(&outputs, store);
            error.into()
        })
    }

    fn derivation_path(&self) -> String {
        self.derivation.path.in_store(&self.config.store_directory).display().to_string()
    }
}

/// Moves all outputs into the store. If one can't be, those before it go back, so that nothing that is not valid stays.
fn take_all(outputs: &[PreparedOutput], store: &Path) -> Result<(), Failure> {
    for (index, output) in outputs.iter().enumerate() {
        if let Err(error) = take::take(output.staged.as_path(), &output.path.in_store(store)) {
            put_back(&outputs[..index], store);
            return Err(error.into());
        }
    }
    Ok(())
}

/// Moves outputs out of the store again, where the daemon removes them. What can't be moved Nix removes before it builds
/// the derivation another time.
fn put_back(outputs: &[PreparedOutput], store: &Path) {
    for taken in outputs {
        let _ = take::take(&taken.path.in_store(store), taken.staged.as_path());
    }
}

/// Whether the daemon made what it was asked for: these outputs at these paths, referring to nothing else.
fn agree(request: &BuildRequest, outputs: &[PreparedOutput]) -> Result<(), String> {
    let wanted: BTreeMap<_, _> = request
        .outputs
        .iter()
        .filter(|output| output.wanted)
        .map(|output| (&output.name, &output.path))
        .collect();
    let made: BTreeMap<_, _> = outputs.iter().map(|output| (&output.name, &output.path)).collect();
    if wanted != made || made.len() != outputs.len() {
        return Err(format!("the daemon returned the outputs {:?} where {:?} were asked for", made, wanted));
    }
    let candidates: BTreeSet<&StoreName> =
        request.inputs.iter().chain(request.outputs.iter().map(|output| &output.path)).collect();
    for output in outputs {
        if let Some(stray) = output.references.iter().find(|path| !candidates.contains(path)) {
            return Err(format!("the daemon found a reference to '{stray}', which is no input"));
        }
        if !output.staged.as_path().is_absolute() {
            return Err(format!(
                "the daemon left an output at '{}', which is no absolute path",
                output.staged
            ));
        }
    }
    Ok(())
}
