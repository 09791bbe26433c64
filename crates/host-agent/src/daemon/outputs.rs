//! From a dead slot's store view to outputs that a front end can take.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use protocol::message::Exit;

use crate::publish::{
    Candidates, CopyRules, Form, HandedOver, Handling, Interrupt, Interrupted, Leftover, Links, PublishError,
    Transfer, copy_tree, hand_over_output, publish,
};
use crate::request::{BuildOutcome, HandedOutput, Network, OutputRequest, PreparedOutput};
use crate::store_path::StoreName;

/// What is to be done.
pub(super) struct Work {
    /// The store view, its mounts gone with the slot.
    pub(super) view: PathBuf,
    /// Where prepared outputs go; on the same file system.
    pub(super) results: PathBuf,
    /// Uid that the builder had.
    pub(super) builder: u32,
    /// Uid and gid that outputs get.
    pub(super) owner: (u32, u32),
    pub(super) network: Network,
    pub(super) inputs: Vec<StoreName>,
    pub(super) outputs: Vec<OutputRequest>,
    pub(super) max_bytes: Option<u64>,
    /// When to end early.
    pub(super) interrupt: Interrupt,
}

/// Prepares all wanted outputs; blocking.
pub(super) fn prepare(work: &Work) -> BuildOutcome {
    let missing: Vec<String> = work
        .outputs
        .iter()
        .filter(|output| output.wanted && work.view.join(output.path.as_str()).symlink_metadata().is_err())
        .map(|output| output.name.clone())
        .collect();
    if !missing.is_empty() {
        return BuildOutcome::MissingOutputs(missing);
    }
    let (view, results) = match work.open() {
        Ok(opened) => opened,
        Err(outcome) => return outcome,
    };
    let candidates =
        Candidates::new(work.inputs.iter().chain(work.outputs.iter().map(|output| &output.path)).cloned());
    let mut links = Links::default();
    let mut left = work.max_bytes;
    let mut prepared = Vec::new();
    for output in work.outputs.iter().filter(|output| output.wanted) {
        let handling = match work.network {
            Network::Loopback => Handling::InPlace,
            // A descriptor open for writing may have left the slot through the host's network namespace.
            Network::Outside => Handling::CopyTo { directory: results.as_fd() },
        };
        let leftover = Leftover {
            parent: view.as_fd(),
            name: &output.path,
            builder: work.builder,
            owner: work.owner,
            digest: output.digest,
            max_nar_bytes: left,
            handling,
            interrupt: &work.interrupt,
        };
        let published = match publish(&leftover, &candidates, &mut links) {
            Ok(published) => published,
            Err(error) => return failed(output, &error),
        };
        left = left.map(|left| left.saturating_sub(published.nar_size));
        let staged = work.results.join(output.path.as_str());
        if work.network == Network::Loopback
            && let Err(outcome) = work.stage(output)
        {
            return outcome;
        }
        prepared.push(PreparedOutput {
            name: output.name.clone(),
            path: output.path.clone(),
            staged: staged.as_path().into(),
            nar_sha256: published.nar_sha256,
            nar_size: published.nar_size,
            references: published.references,
            digest: published.digest,
            depth: published.depth,
        });
    }
    BuildOutcome::Built(prepared)
}

/// Hands over what is there of all outputs, unprepared; blocking.
pub(super) fn hand_over(work: &Work) -> BuildOutcome {
    let (view, results) = match work.open() {
        Ok(opened) => opened,
        Err(outcome) => return outcome,
    };
    let mut seen = HandedOver::default();
    let mut left = work.max_bytes;
    let mut handed = Vec::new();
    for output in &work.outputs {
        let name = output.path.as_str().as_bytes();
        if work.view.join(output.path.as_str()).symlink_metadata().is_err() {
            continue;
        }
        let transfer = |builder| Transfer { builder, owner: work.owner, interrupt: &work.interrupt };
        let bytes = match work.network {
            Network::Loopback => {
                hand_over_output(view.as_fd(), name, transfer(work.builder), left, &mut seen)
            }
            // As above; the copy is ours until it is handed over.
            Network::Outside => {
                let rules = CopyRules {
                    owned_by: Some(work.builder),
                    max_bytes: left,
                    form: Form::Canonical,
                    interrupt: work.interrupt.clone(),
                };
                let us = transfer(nix::unistd::geteuid().as_raw());
                copy_tree(view.as_fd(), name, results.as_fd(), name, &rules).and_then(|()| {
                    hand_over_output(results.as_fd(), name, us, None, &mut HandedOver::default())
                })
            }
        };
        match bytes {
            Ok(bytes) => left = left.map(|left| left.saturating_sub(bytes)),
            Err(error) => return failed(output, &error),
        }
        if work.network == Network::Loopback
            && let Err(outcome) = work.stage(output)
        {
            return outcome;
        }
        let staged = work.results.join(output.path.as_str());
        handed.push(HandedOutput { path: output.path.clone(), staged: staged.as_path().into() });
    }
    BuildOutcome::HandedOver(handed)
}

/// What a full disk or such did is not the builder's doing. What takes too long to publish has taken too long to build.
fn failed(output: &OutputRequest, error: &PublishError) -> BuildOutcome {
    match error {
        PublishError::Interrupted(Interrupted::TimedOut) => BuildOutcome::BuilderFailed(Exit::TimedOut),
        PublishError::Interrupted(Interrupted::Cancelled) => {
            BuildOutcome::Infrastructure("the daemon was stopped".into())
        }
        error if error.is_about_the_output() => {
            BuildOutcome::OutputRejected { output: output.name.clone(), reason: error.to_string() }
        }
        error => BuildOutcome::Infrastructure(format!("failed to publish '{}': {error}", output.name)),
    }
}

impl Work {
    fn open(&self) -> Result<(File, File), BuildOutcome> {
        let opened: io::Result<_> =
            File::open(&self.view).and_then(|view| Ok((view, File::open(&self.results)?)));
        opened.map_err(|error| {
            BuildOutcome::Infrastructure(format!("failed to open the slot's outputs: {error}"))
        })
    }

    /// Moves an output from the view to the results.
    fn stage(&self, output: &OutputRequest) -> Result<(), BuildOutcome> {
        let name = output.path.as_str();
        fs::rename(self.view.join(name), self.results.join(name)).map_err(|error| {
            BuildOutcome::Infrastructure(format!("failed to move an output out of its slot: {error}"))
        })
    }
}
