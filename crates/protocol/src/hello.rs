//! The handshake: both sides say what they speak, and both compute the same result from it.

use std::io::Read;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Printable;
use crate::frame::{self, FrameError, HEADER_LEN};
use crate::limits::IDENTITY_MAX;

/// First bytes of every connection's first message, so that a stray peer is recognised before it is understood.
pub const MAGIC: [u8; 8] = *b"drlngbld";

/// Oldest protocol version this build still speaks.
pub const VERSION_MIN: u32 = 1;

/// Newest protocol version this build speaks.
pub const VERSION_MAX: u32 = 1;

/// Largest payload of a greeting, bytes. A stray peer's first bytes, read as a length, are nearly always more.
pub const HELLO_MAX: usize = 4096;

/// Bytes of magic and versions, which every version of this protocol has at the start of its greeting.
const PREFIX_LEN: usize = 16;

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
    /// The agent can give the process a terminal of its own and a stdin: `Streams::Terminal`, `Streams::PipesWithInput`,
    /// `Input`, `Resize`.
    pub const INPUT: Features = Features(1 << 3);
    /// Everything this build knows.
    pub const ALL: Features = Features(Self::PTY.0 | Self::REAP.0 | Self::DIAGNOSTICS.0 | Self::INPUT.0);

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

/// What a program calls itself.
pub type Identity = Printable<IDENTITY_MAX>;

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
    pub identity: Identity,
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
#[derive(Debug, Error)]
pub enum HelloError {
    /// The other side is something else entirely.
    #[error("peer does not speak the darling-builder protocol (its first bytes: {})", .0.escape_ascii())]
    Magic([u8; 8]),
    /// The other side hung up without a greeting.
    #[error("peer closed the connection before its greeting")]
    Closed,
    /// The right magic and version, and then something else, or no frame at all.
    #[error("failed to read the peer's greeting: {0}")]
    Frame(#[from] FrameError),
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
    pub fn ours(channel: Channel, identity: &str) -> Self {
        Self {
            magic: MAGIC,
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            features: Features::ALL,
            channel,
            identity: Identity::made_of(identity),
        }
    }

    /// What follows from the two greetings; the same on both sides.
    pub fn agree(&self, peer: &Hello) -> Result<Agreed, HelloError> {
        check_magic(peer.magic)?;
        let version =
            common_version((self.version_min, self.version_max), (peer.version_min, peer.version_max))?;
        Ok(Agreed { version, features: self.features.intersection(peer.features) })
    }

    /// Reads the peer's greeting. Says of a peer that is something else, or too new, just that, whatever the rest of
    /// its bytes would decode to.
    pub fn read(reader: &mut impl Read) -> Result<Hello, HelloError> {
        let mut header = [0; HEADER_LEN];
        if !frame::fill_header(reader, &mut header)? {
            return Err(HelloError::Closed);
        }
        let mut payload = vec![0; Self::payload_len(header)?];
        reader.read_exact(&mut payload).map_err(frame::cut_or_failed)?;
        Self::from_payload(&payload)
    }

    /// The payload length that the header of a greeting announces. For those who read by other means than
    /// [`Hello::read`]; give the payload to [`Hello::from_payload`].
    pub fn payload_len(header: [u8; HEADER_LEN]) -> Result<usize, HelloError> {
        match u32::from_le_bytes(header) as usize {
            len @ PREFIX_LEN..=HELLO_MAX => Ok(len),
            _ => {
                let mut magic = [0; 8];
                magic[..HEADER_LEN].copy_from_slice(&header);
                Err(HelloError::Magic(magic))
            }
        }
    }

    /// A greeting from its payload; one of another protocol or with no version in common is refused before the rest
    /// is decoded, because the rest may change with the version.
    pub fn from_payload(payload: &[u8]) -> Result<Hello, HelloError> {
        let prefix = payload.first_chunk::<PREFIX_LEN>().ok_or(FrameError::Truncated)?;
        let [magic @ .., a, b, c, d, e, f, g, h] = *prefix;
        check_magic(magic)?;
        let theirs = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        common_version((VERSION_MIN, VERSION_MAX), theirs)?;
        Ok(frame::decode(payload)?)
    }
}

fn check_magic(magic: [u8; 8]) -> Result<(), HelloError> {
    if magic == MAGIC { Ok(()) } else { Err(HelloError::Magic(magic)) }
}

fn common_version(ours: (u32, u32), theirs: (u32, u32)) -> Result<u32, HelloError> {
    let version = ours.1.min(theirs.1);
    if version >= ours.0.max(theirs.0) {
        return Ok(version);
    }
    Err(HelloError::Version {
        theirs_min: theirs.0,
        theirs_max: theirs.1,
        ours_min: ours.0,
        ours_max: ours.1,
    })
}
