//! The handshake: both sides say what they speak, and both compute the same result from it.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// First bytes of every connection's first message, so that a stray peer is recognised before it is understood.
pub const MAGIC: [u8; 8] = *b"drlngbld";

/// Oldest protocol version this build still speaks.
pub const VERSION_MIN: u32 = 1;

/// Newest protocol version this build speaks.
pub const VERSION_MAX: u32 = 1;

/// Optional abilities, a bit each; what both sides have is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Features(pub u64);

impl Features {
    /// The agent can give the process a pseudo-terminal.
    pub const PTY: Features = Features(1 << 0);
    /// The agent kills and reaps descendants that outlive the process.
    pub const REAP: Features = Features(1 << 1);
    /// The agent answers diagnostics requests.
    pub const DIAGNOSTICS: Features = Features(1 << 2);
    /// Everything this build knows.
    pub const ALL: Features = Features(Self::PTY.0 | Self::REAP.0 | Self::DIAGNOSTICS.0);

    /// What both sides have.
    pub fn intersection(self, other: Features) -> Features {
        Features(self.0 & other.0)
    }

    /// Whether every feature of `other` is here.
    pub fn contains(self, other: Features) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Which of an agent's two connections this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Channel {
    /// Messages as in [`message`](crate::message).
    Control,
    /// After the handshake: single bytes, each answered by the same byte after a sleep of half a millisecond inside
    /// the guest (reference: Darling's server loses its only timer under load; a new sleep re-arms it).
    Tick,
}

/// The first message each side sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// Oldest version spoken.
    pub version_min: u32,
    /// Newest version spoken.
    pub version_max: u32,
    /// Abilities offered.
    pub features: Features,
    /// What this connection is for; the agent decides, the host echoes it.
    pub channel: Channel,
    /// Who speaks, for logs: program, version, system.
    pub identity: String,
}

/// What both sides use after the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// The newest version both speak.
    pub version: u32,
    /// The features both have.
    pub features: Features,
}

/// Why two peers can't talk.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HelloError {
    /// The other side is something else entirely.
    #[error("peer does not speak the darling-builder protocol (magic {0:02x?})")]
    Magic([u8; 8]),
    /// No version in common.
    #[error(
        "peer speaks protocol versions {theirs_min} to {theirs_max}, this side {ours_min} to {ours_max}: \
         install host-agent and darwin-agent from the same release"
    )]
    Version {
        /// Oldest of the peer.
        theirs_min: u32,
        /// Newest of the peer.
        theirs_max: u32,
        /// Oldest of this side.
        ours_min: u32,
        /// Newest of this side.
        ours_max: u32,
    },
}

impl Hello {
    /// What this build says of itself.
    pub fn ours(channel: Channel, identity: impl Into<String>) -> Self {
        Self {
            magic: MAGIC,
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            features: Features::ALL,
            channel,
            identity: identity.into(),
        }
    }

    /// What follows from the two greetings; the same on both sides.
    pub fn agree(&self, peer: &Hello) -> Result<Agreed, HelloError> {
        if peer.magic != MAGIC {
            return Err(HelloError::Magic(peer.magic));
        }
        let version = self.version_max.min(peer.version_max);
        if version < self.version_min.max(peer.version_min) {
            return Err(HelloError::Version {
                theirs_min: peer.version_min,
                theirs_max: peer.version_max,
                ours_min: self.version_min,
                ours_max: self.version_max,
            });
        }
        Ok(Agreed { version, features: self.features.intersection(peer.features) })
    }
}
