//! From a dead slot's store view to outputs that a front end can take.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::publish::{Candidates, Handling, Leftover, Links, publish};
use crate::request::{BuildOutcome, Network, OutputRequest, PreparedOutput};
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
    let (view, results) = match (File::open(&work.view), File::open(&work.results)) {
        (Ok(view), Ok(results)) => (view, results),
        (Err(error), _) | (_, Err(error)) => {
            return BuildOutcome::Infrastructure(format!("failed to open the slot's outputs: {error}"));
        }
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
            Network::Host => Handling::CopyTo { directory: results.as_fd() },
        };
        let leftover = Leftover {
            parent: view.as_fd(),
            name: &output.path,
            builder: work.builder,
            owner: work.owner,
            digest: output.digest,
            max_nar_bytes: left,
            handling,
        };
        let published = match publish(&leftover, &candidates, &mut links) {
            Ok(published) => published,
            // A full disk is not the builder's doing.
            Err(error) if !error.is_about_the_output() => {
                return BuildOutcome::Infrastructure(format!("failed to publish '{}': {error}", output.name));
            }
            Err(error) => {
                return BuildOutcome::OutputRejected {
                    output: output.name.clone(),
                    reason: error.to_string(),
                };
            }
        };
        left = left.map(|left| left.saturating_sub(published.nar_size));
        let staged = work.results.join(output.path.as_str());
        if work.network == Network::Loopback
            && let Err(error) = move_within(&work.view.join(output.path.as_str()), &staged)
        {
            return BuildOutcome::Infrastructure(format!(
                "failed to move an output out of its slot: {error}"
            ));
        }
        prepared.push(PreparedOutput {
            name: output.name.clone(),
            path: output.path.clone(),
            staged: staged.as_path().into(),
            nar_sha256: published.nar_sha256,
            nar_size: published.nar_size,
            references: published.references,
            digest: published.digest,
        });
    }
    BuildOutcome::Built(prepared)
}

fn move_within(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}
