//! Where the bytes of a NAR go: through the reference scan and into digests.
//!
//! SHA-256 is the slowest part and strictly sequential, so it gets a thread of its own as soon as there is enough data
//! for that to pay; reading, scanning and any second digest stay with the caller. Buffers go back and forth between the
//! two: their number is fixed, so a fast reader waits.

use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use super::references::{Candidates, Scanner};
use crate::request::{DigestAlgorithm, DigestMethod, DigestRequest};
use crate::store_path::StoreName;

/// Length of a buffer, bytes. A few of them fit into a core's second-level cache.
const BUFFER: usize = 256 * 1024;

/// Buffers in circulation once there is a second thread.
const BUFFERS: usize = 6;

/// From how many bytes on there is a second thread: hashing this much takes about 2 ms, starting a thread a fiftieth of
/// that.
const THREAD_FROM: u64 = 4 * 1024 * 1024;

/// The thread that hashes died.
#[derive(Debug)]
pub(super) struct ThreadDied;

/// A digest of a part of the stream.
struct SecondDigest {
    state: DigestState,
    part: Range<u64>,
}

enum DigestState {
    Md5(Md5),
    Sha1(Sha1),
    Sha256(Sha256),
    Sha512(Sha512),
}

impl DigestState {
    fn new(algorithm: DigestAlgorithm) -> Self {
        match algorithm {
            DigestAlgorithm::Md5 => Self::Md5(Md5::new()),
            DigestAlgorithm::Sha1 => Self::Sha1(Sha1::new()),
            DigestAlgorithm::Sha256 => Self::Sha256(Sha256::new()),
            DigestAlgorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(state) => state.update(bytes),
            Self::Sha1(state) => state.update(bytes),
            Self::Sha256(state) => state.update(bytes),
            Self::Sha512(state) => state.update(bytes),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::Md5(state) => state.finalize().to_vec(),
            Self::Sha1(state) => state.finalize().to_vec(),
            Self::Sha256(state) => state.finalize().to_vec(),
            Self::Sha512(state) => state.finalize().to_vec(),
        }
    }
}

/// Who computes the SHA-256.
enum Sha {
    Caller(Sha256),
    Thread(Hasher),
}

struct Hasher {
    /// Buffers to hash, with the length that is filled.
    full: SyncSender<(Vec<u8>, usize)>,
    /// The same buffers coming back.
    empty: Receiver<Vec<u8>>,
    /// How many buffers may still be made.
    spare: usize,
    thread: JoinHandle<Sha256>,
}

impl Hasher {
    /// Goes on with a digest in a new thread; gives it back if there can't be one.
    fn start(state: Sha256) -> Result<Self, Sha256> {
        let (full, work) = sync_channel::<(Vec<u8>, usize)>(BUFFERS);
        let (done, empty) = sync_channel(BUFFERS);
        let mut hashing = state.clone();
        let thread = std::thread::Builder::new().name("nar-hash".to_owned()).spawn(move || {
            while let Ok((buffer, filled)) = work.recv() {
                hashing.update(&buffer[..filled]);
                // Nobody wants it back at the end of the stream.
                let _ = done.send(buffer);
            }
            hashing
        });
        match thread {
            Ok(thread) => Ok(Self { full, empty, spare: BUFFERS - 1, thread }),
            Err(_) => Err(state),
        }
    }

    /// Hands over a buffer, returns an empty one; waits for it if all are in use.
    fn exchange(&mut self, buffer: Vec<u8>, filled: usize) -> Result<Vec<u8>, ThreadDied> {
        self.full.send((buffer, filled)).map_err(|_| ThreadDied)?;
        match self.empty.try_recv() {
            Ok(buffer) => Ok(buffer),
            Err(_) if self.spare > 0 => {
                self.spare -= 1;
                Ok(vec![0; BUFFER])
            }
            Err(_) => self.empty.recv().map_err(|_| ThreadDied),
        }
    }
}

/// A stream of bytes being hashed and scanned.
pub(super) struct Pipeline<'c> {
    buffer: Vec<u8>,
    filled: usize,
    /// Bytes that have left `buffer`.
    flushed: u64,
    scanner: Scanner<'c>,
    second: Option<SecondDigest>,
    /// The second digest is the first one.
    second_is_first: bool,
    sha: Sha,
}

/// What came of a stream.
pub(super) struct Hashed {
    pub sha256: [u8; 32],
    pub size: u64,
    pub references: Vec<StoreName>,
    pub digest: Option<Vec<u8>>,
}

impl<'c> Pipeline<'c> {
    /// At the start of a stream. A flat digest covers what [`flat_part`](Self::flat_part) says.
    pub fn new(candidates: &'c Candidates, digest: Option<DigestRequest>) -> Self {
        let second_is_first = matches!(
            digest,
            Some(DigestRequest { algorithm: DigestAlgorithm::Sha256, method: DigestMethod::Recursive })
        );
        let second = digest.filter(|_| !second_is_first).map(|digest| SecondDigest {
            state: DigestState::new(digest.algorithm),
            part: match digest.method {
                DigestMethod::Flat => 0..0,
                DigestMethod::Recursive => 0..u64::MAX,
            },
        });
        Self {
            buffer: vec![0; BUFFER],
            filled: 0,
            flushed: 0,
            scanner: Scanner::new(candidates),
            second,
            second_is_first,
            sha: Sha::Caller(Sha256::new()),
        }
    }

    /// Says which part of the stream a flat digest is of: this many bytes from here on.
    pub fn flat_part(&mut self, length: u64) {
        let here = self.position();
        if let Some(second) = &mut self.second {
            second.part = here..here + length;
        }
    }

    /// How many bytes the stream has so far.
    pub fn position(&self) -> u64 {
        self.flushed + self.filled as u64
    }

    /// Appends bytes.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), ThreadDied> {
        while !bytes.is_empty() {
            let space = self.space()?;
            let length = space.len().min(bytes.len());
            let (now, later) = bytes.split_at(length);
            space[..length].copy_from_slice(now);
            self.advance(length);
            bytes = later;
        }
        Ok(())
    }

    /// Where the next bytes may be put, at least one of them; to be followed by [`advance`](Self::advance).
    pub fn space(&mut self) -> Result<&mut [u8], ThreadDied> {
        if self.filled == self.buffer.len() {
            self.flush()?;
        }
        Ok(&mut self.buffer[self.filled..])
    }

    /// That many bytes were put into [`space`](Self::space).
    pub fn advance(&mut self, length: usize) {
        self.filled += length;
    }

    fn flush(&mut self) -> Result<(), ThreadDied> {
        let bytes = &self.buffer[..self.filled];
        self.scanner.scan(bytes);
        let end = self.flushed + bytes.len() as u64;
        if let Some(SecondDigest { state, part }) = &mut self.second {
            let from = part.start.clamp(self.flushed, end) - self.flushed;
            let to = part.end.clamp(self.flushed, end) - self.flushed;
            state.update(&bytes[from as usize..to as usize]);
        }
        match &mut self.sha {
            Sha::Caller(state) => {
                state.update(bytes);
                if end >= THREAD_FROM {
                    match Hasher::start(std::mem::take(state)) {
                        Ok(hasher) => self.sha = Sha::Thread(hasher),
                        Err(kept) => *state = kept,
                    }
                }
            }
            Sha::Thread(hasher) => {
                self.buffer = hasher.exchange(std::mem::take(&mut self.buffer), self.filled)?;
            }
        }
        self.flushed = end;
        self.filled = 0;
        Ok(())
    }

    /// The end of the stream.
    pub fn finish(mut self) -> Result<Hashed, ThreadDied> {
        self.flush()?;
        let state = match self.sha {
            Sha::Caller(state) => state,
            Sha::Thread(Hasher { full, empty, thread, .. }) => {
                drop((full, empty));
                thread.join().map_err(|_| ThreadDied)?
            }
        };
        let sha256: [u8; 32] = state.finalize().into();
        let digest = match self.second {
            Some(second) => Some(second.state.finish()),
            None => self.second_is_first.then(|| sha256.to_vec()),
        };
        Ok(Hashed { sha256, size: self.flushed, references: self.scanner.finish(), digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashed(stream: &[u8], chunk: usize, digest: Option<DigestRequest>) -> Hashed {
        let candidates = Candidates::new([]);
        let mut pipeline = Pipeline::new(&candidates, digest);
        stream.chunks(chunk).for_each(|chunk| pipeline.write(chunk).unwrap());
        pipeline.finish().unwrap()
    }

    /// Sizes around the edges of the buffers and of the second thread.
    #[test]
    fn hashes_all_bytes_with_and_without_the_second_thread() {
        let stream: Vec<u8> =
            (0..3 * THREAD_FROM as u32).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
        let threshold = THREAD_FROM as usize;
        for length in
            [0, 1, BUFFER - 1, BUFFER, BUFFER + 1, threshold - 1, threshold, threshold + 1, stream.len()]
        {
            let stream = &stream[..length];
            let request = DigestRequest { algorithm: DigestAlgorithm::Sha1, method: DigestMethod::Recursive };
            let result = hashed(stream, 100_003, Some(request));
            assert_eq!(result.sha256, <[u8; 32]>::from(Sha256::digest(stream)), "{length} bytes");
            assert_eq!(result.size, length as u64);
            assert_eq!(result.digest, Some(Sha1::digest(stream).to_vec()), "{length} bytes");
        }
    }

    #[test]
    fn a_flat_digest_covers_its_part_of_the_stream_only() {
        let candidates = Candidates::new([]);
        let request = DigestRequest { algorithm: DigestAlgorithm::Md5, method: DigestMethod::Flat };
        let mut pipeline = Pipeline::new(&candidates, Some(request));
        pipeline.write(b"before").unwrap();
        let contents = vec![7; 2 * BUFFER + 5];
        pipeline.flat_part(contents.len() as u64);
        pipeline.write(&contents).unwrap();
        pipeline.write(b"after").unwrap();
        assert_eq!(pipeline.finish().unwrap().digest, Some(Md5::digest(&contents).to_vec()));
    }

    #[test]
    fn an_abandoned_stream_lets_its_thread_end() {
        let candidates = Candidates::new([]);
        let mut pipeline = Pipeline::new(&candidates, None);
        pipeline.write(&vec![0; 2 * THREAD_FROM as usize]).unwrap();
        let Sha::Thread(Hasher { full, empty, thread, .. }) = pipeline.sha else {
            panic!("no second thread")
        };
        drop((full, empty));
        assert!(thread.join().is_ok());
    }
}
