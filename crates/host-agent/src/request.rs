//! What a front end asks of the daemon, and what it gets back.
//!
//! [`BuildRequest`] is all that the daemon knows of a build: a program, its surroundings, its inputs and where its
//! outputs will appear. It holds no derivation; what a derivation means is the business of [`crate::nix`].

use std::fmt;
use std::time::Duration;

use protocol::ByteString;
use protocol::message::{Exit, Usage};
use serde::{Deserialize, Serialize};

use crate::store_path::StoreName;

/// One build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRequest {
    /// Base name of the derivation; for reports and directory names only.
    pub derivation: StoreName,
    /// Executed as it is.
    pub program: ByteString,
    /// Arguments, `argv[0]` first.
    pub argv: Vec<ByteString>,
    /// Complete environment. The build directory is [`BUILD_DIR`] in it.
    pub env: Vec<(ByteString, ByteString)>,
    /// Which directory of the host the builder finds as [`BUILD_DIR`].
    pub build_directory: BuildDirectory,
    /// Files to put into a build directory of the slot's own, mode 0644, owned by the builder.
    pub files: Vec<BuildFile>,
    /// The input closure: all of the store that the builder sees.
    pub inputs: Vec<StoreName>,
    /// Where the builder will write.
    pub outputs: Vec<OutputRequest>,
    /// What of the network the builder sees.
    pub network: Network,
    /// Limits of this build; the daemon's own apply as well, whichever is stricter.
    pub limits: BuildLimits,
    /// Keep the slot's own build directory if the build fails.
    pub keep_failed: bool,
    /// What becomes of the outputs.
    pub publishing: Publishing,
}

/// A directory to build in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BuildDirectory {
    /// A new one, which goes with the slot.
    Own,
    /// One of whoever asks. The builder finds what is in it, and what the builder leaves is in it before the report.
    Given {
        /// Absolute path on the host; no part of it may be a symbolic link.
        path: ByteString,
    },
}

/// What becomes of what the builder leaves at its outputs' paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Publishing {
    /// Checked, put in canonical form, hashed and scanned: ready to be registered. All wanted outputs must be there.
    Prepare,
    /// Given to whoever asks as the builder left it, for someone else to check; what is not there is left out.
    HandOver,
}

/// The build directory as every builder sees it.
pub const BUILD_DIR: &str = "/build";

/// A file that is there before the builder starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildFile {
    /// A plain name, without `/`.
    pub name: ByteString,
    /// Its contents.
    pub contents: ByteString,
}

/// One output of the derivation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputRequest {
    /// Output name, e.g. `out`.
    pub name: String,
    /// The store object that it becomes.
    pub path: StoreName,
    /// `false`: it is valid already, the builder makes it again and the result is thrown away.
    pub wanted: bool,
    /// A digest to compute besides the NAR hash (fixed outputs).
    pub digest: Option<DigestRequest>,
}

/// A digest of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestRequest {
    /// Hash function.
    pub algorithm: DigestAlgorithm,
    /// Over what.
    pub method: DigestMethod,
}

/// Hash functions of fixed-output derivations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DigestAlgorithm {
    /// MD5, 16 bytes.
    Md5,
    /// SHA-1, 20 bytes.
    Sha1,
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-512, 64 bytes.
    Sha512,
}

/// What is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DigestMethod {
    /// The contents of a regular, non-executable file.
    Flat,
    /// The NAR serialisation of whatever it is.
    Recursive,
}

/// What of the network a builder sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// A loopback interface of its own.
    Loopback,
    /// What the host's network reaches; only for what is proven to be fixed-output. Its outputs are copied, never renamed.
    Outside,
}

/// Limits of one build; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildLimits {
    /// Wall-clock time from the builder's start.
    pub wall: Option<Duration>,
    /// Time without output, not counting time that the reader of the log was the slow one.
    pub silence: Option<Duration>,
    /// Bytes of output.
    pub log_bytes: Option<u64>,
    /// Bytes (NAR size) of all wanted outputs together.
    pub output_bytes: Option<u64>,
}

impl BuildLimits {
    /// Of each limit the stricter one.
    pub fn stricter(self, other: Self) -> Self {
        fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
            match (one, other) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            }
        }
        Self {
            wall: least(self.wall, other.wall),
            silence: least(self.silence, other.silence),
            log_bytes: least(self.log_bytes, other.log_bytes),
            output_bytes: least(self.output_bytes, other.output_bytes),
        }
    }

    /// Names the limit of outputs if it looks as if one file of a builder that ended so has met it: no file may be larger
    /// than all outputs together. Its writer is killed by SIGXFSZ, which has this number in Linux and in Darwin, and a shell
    /// that the writer has belonged to returns 128 more.
    pub fn file_too_large(&self, exit: &Exit) -> Option<String> {
        const SIGXFSZ: i32 = 25;
        const IN_A_SHELL: i32 = 128 + SIGXFSZ;
        let limit = self.output_bytes?;
        matches!(exit, Exit::Signal(SIGXFSZ) | Exit::Code(IN_A_SHELL)).then(|| {
            format!("most likely a file was about to become larger than {limit} bytes, the limit of outputs (`limits.output-bytes`)")
        })
    }
}

/// Where a build is; sent as it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BuildPhase {
    /// Waits for a slot; this many are ahead of it.
    Queued(u32),
    /// Has slot number so-and-so; inputs and build directory are being put in place.
    Preparing(u32),
    /// The builder runs.
    Building,
    /// The builder has ended; what is left of it is being killed.
    Stopping,
    /// Outputs are checked, put in canonical form, hashed and scanned.
    Publishing,
}

/// What the daemon says at the end of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildReport {
    /// The result.
    pub outcome: BuildOutcome,
    /// What the builder used, if it ran.
    pub usage: Usage,
    /// Bytes of output that it printed.
    pub log_bytes: u64,
    /// How long each phase took.
    pub timings: PhaseTimings,
    /// Host path of the build directory if it was kept.
    pub kept: Option<ByteString>,
}

/// Time spent in each phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTimings {
    /// Waiting for a slot.
    pub queued: Duration,
    /// Booting one, if none was warm.
    pub booting: Duration,
    /// Store view and build directory.
    pub preparing: Duration,
    /// The builder.
    pub building: Duration,
    /// Killing what is left.
    pub stopping: Duration,
    /// Checks, canonical form, hash, references.
    pub publishing: Duration,
}

impl PhaseTimings {
    /// Every phase with its name, in order.
    pub fn phases(&self) -> [(&'static str, Duration); 6] {
        [
            ("queued", self.queued),
            ("booting", self.booting),
            ("preparing", self.preparing),
            ("building", self.building),
            ("stopping", self.stopping),
            ("publishing", self.publishing),
        ]
    }
}

impl fmt::Display for PhaseTimings {
    /// Milliseconds of each phase that took a tenth of one or more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (phase, time) in self.phases() {
            if time.as_micros() >= 100 {
                let separator = if std::mem::take(&mut first) { "" } else { ", " };
                write!(f, "{separator}{phase} {:.1} ms", time.as_secs_f64() * 1000.0)?;
            }
        }
        Ok(())
    }
}

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BuildOutcome {
    /// The builder returned 0 and all wanted outputs are ready to be taken.
    Built(Vec<PreparedOutput>),
    /// The builder returned 0 and what it made is ready to be taken ([`Publishing::HandOver`]).
    HandedOver(Vec<HandedOutput>),
    /// The builder failed, or was ended by a limit. `Exit::Code(0)` does not occur here.
    BuilderFailed(Exit),
    /// The builder returned 0 without having made these outputs (names).
    MissingOutputs(Vec<String>),
    /// An output can't be put into a store; the text says why.
    OutputRejected {
        /// Output name.
        output: String,
        /// Readable reason.
        reason: String,
    },
    /// The slot or the guest failed, not the builder; the text says what and what to do.
    Infrastructure(String),
}

/// An output as its builder left it, but for its owner, and for set-uid and set-gid bits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedOutput {
    /// The store object that it becomes.
    pub path: StoreName,
    /// Where it is now: an absolute host path.
    pub staged: ByteString,
}

/// An output that only has to be moved into the store and registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedOutput {
    /// Output name.
    pub name: String,
    /// The store object that it becomes.
    pub path: StoreName,
    /// Where it is now: an absolute host path on the store's file system if that was possible, in canonical form and
    /// owned by whoever asked.
    pub staged: ByteString,
    /// SHA-256 of its NAR serialisation.
    pub nar_sha256: [u8; 32],
    /// Length of its NAR serialisation, bytes.
    pub nar_size: u64,
    /// Inputs and outputs whose hash part occurs in it, sorted.
    pub references: Vec<StoreName>,
    /// The digest that was asked for.
    pub digest: Option<ByteString>,
    /// How far below its top its deepest entry is: 0 for a file, 1 for what is directly in a directory.
    pub depth: u64,
}

impl DigestAlgorithm {
    /// Bytes in such a digest.
    #[expect(clippy::len_without_is_empty, reason = "a digest is never empty")]
    pub fn len(self) -> usize {
        match self {
            DigestAlgorithm::Md5 => 16,
            DigestAlgorithm::Sha1 => 20,
            DigestAlgorithm::Sha256 => 32,
            DigestAlgorithm::Sha512 => 64,
        }
    }

    /// As Nix writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            DigestAlgorithm::Md5 => "md5",
            DigestAlgorithm::Sha1 => "sha1",
            DigestAlgorithm::Sha256 => "sha256",
            DigestAlgorithm::Sha512 => "sha512",
        }
    }
}
