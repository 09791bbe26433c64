//! Finding references: which of the candidates' hash parts occur in a stream of bytes.
//!
//! A store path is referenced wherever the 32 characters of its hash part occur in the NAR serialisation of an output,
//! be it in contents, in names or in symlink targets (Nix `src/libstore/references.cc`). All of them are characters of
//! Nix's base-32 alphabet, which allows for skipping in the manner of Boyer and Moore: if a window of 32 bytes has one
//! outside of the alphabet, the next window worth a look begins behind the last such byte. Most bytes of most files
//! are never looked at.

use std::collections::HashMap;

use crate::store_path::{HASH_LEN, StoreName};

const ALPHABET: [bool; 256] = {
    let characters = b"0123456789abcdfghijklmnpqrsvwxyz";
    let mut table = [false; 256];
    let mut index = 0;
    while index < characters.len() {
        table[characters[index] as usize] = true;
        index += 1;
    }
    table
};

/// What an output may refer to: the inputs and outputs of its build. Made once, shared over the outputs.
pub struct Candidates {
    /// Sorted, each once; those with the same hash part are therefore next to each other.
    names: Vec<StoreName>,
    /// From a hash part to the first of `names` that has it.
    by_hash: HashMap<[u8; HASH_LEN], usize>,
    /// A bit for what the first eight bytes of each hash part map to. Keeps long runs of the alphabet's characters (a
    /// hex dump, say) from costing a look into `by_hash` for every byte.
    filter: Vec<u64>,
    /// By how much a 64-bit product is shifted to number a bit of `filter`.
    filter_shift: u32,
}

impl Candidates {
    /// Takes the names in any order, repeated or not.
    pub fn new(names: impl IntoIterator<Item = StoreName>) -> Self {
        let mut names: Vec<StoreName> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        // 64 bits for each name: one in 64 wrong windows gets past the filter.
        let bits = (names.len() * 64).next_power_of_two().clamp(1 << 12, 1 << 20);
        let mut candidates = Self {
            by_hash: HashMap::with_capacity(names.len()),
            filter: vec![0; bits / 64],
            filter_shift: u64::BITS - bits.ilog2(),
            names: Vec::new(),
        };
        for (index, name) in names.iter().enumerate() {
            if let Some(hash) = name.hash_part().as_bytes().first_chunk() {
                candidates.by_hash.entry(*hash).or_insert(index);
                let (word, bit) = candidates.filter_bit(hash);
                candidates.filter[word] |= bit;
            }
        }
        candidates.names = names;
        candidates
    }

    fn filter_bit(&self, hash: &[u8; HASH_LEN]) -> (usize, u64) {
        let key = hash.first_chunk().map_or(0, |key| u64::from_le_bytes(*key));
        // Fibonacci hashing: the upper bits of a product with 2^64 / golden ratio depend on all of the key.
        let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.filter_shift;
        ((mixed / 64) as usize, 1 << (mixed % 64))
    }
}

/// Looks for candidates in a stream.
pub struct Scanner<'c> {
    candidates: &'c Candidates,
    /// By index into the candidates' names; of those with the same hash part the first.
    found: Vec<bool>,
    /// How many hash parts were not found yet.
    missing: usize,
    /// The end of what was scanned, too short to be a hash part.
    tail: [u8; HASH_LEN - 1],
    tail_length: usize,
}

impl<'c> Scanner<'c> {
    /// At the start of a stream.
    pub fn new(candidates: &'c Candidates) -> Self {
        Self {
            candidates,
            found: vec![false; candidates.names.len()],
            missing: candidates.by_hash.len(),
            tail: [0; HASH_LEN - 1],
            tail_length: 0,
        }
    }

    /// Scans the next bytes of the stream, however many there are.
    pub fn scan(&mut self, bytes: &[u8]) {
        if self.missing == 0 {
            return;
        }
        let before = self.tail_length;
        let head = bytes.len().min(self.tail.len());
        let mut seam = [0; 2 * (HASH_LEN - 1)];
        seam[..before].copy_from_slice(&self.tail[..before]);
        seam[before..before + head].copy_from_slice(&bytes[..head]);
        let seam = &seam[..before + head];
        // Neither part of the seam is long enough for a hash part of its own: nothing is found twice.
        self.search(seam);
        self.search(bytes);
        let end = if bytes.len() < self.tail.len() { seam } else { bytes };
        self.tail_length = end.len().min(self.tail.len());
        self.tail[..self.tail_length].copy_from_slice(&end[end.len() - self.tail_length..]);
    }

    fn search(&mut self, bytes: &[u8]) {
        let mut start = 0;
        while let Some(window) = bytes[start..].first_chunk::<HASH_LEN>() {
            if let Some(outside) = window.iter().rposition(|byte| !ALPHABET[usize::from(*byte)]) {
                start += outside + 1;
                continue;
            }
            self.look_up(window);
            // All of this window is of the alphabet: for the next ones only their last byte is news.
            start += 1;
            while let Some(window) = bytes[start..].first_chunk::<HASH_LEN>() {
                if !ALPHABET[usize::from(window[HASH_LEN - 1])] {
                    start += HASH_LEN;
                    break;
                }
                self.look_up(window);
                start += 1;
            }
        }
    }

    fn look_up(&mut self, window: &[u8; HASH_LEN]) {
        let (word, bit) = self.candidates.filter_bit(window);
        if self.candidates.filter[word] & bit == 0 {
            return;
        }
        if let Some(&index) = self.candidates.by_hash.get(window)
            && !self.found[index]
        {
            self.found[index] = true;
            self.missing -= 1;
        }
    }

    /// What was found, sorted.
    pub fn finish(self) -> Vec<StoreName> {
        let mut references = Vec::new();
        for (index, _) in self.found.iter().enumerate().filter(|(_, found)| **found) {
            let hash = self.candidates.names[index].hash_part();
            let same = self.candidates.names[index..].iter().take_while(|name| name.hash_part() == hash);
            references.extend(same.cloned());
        }
        references
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(hash: &str) -> StoreName {
        StoreName::parse(format!("{hash}-x").as_bytes()).unwrap()
    }

    fn scanned(candidates: &Candidates, chunks: &[&[u8]]) -> Vec<String> {
        let mut scanner = Scanner::new(candidates);
        chunks.iter().for_each(|chunk| scanner.scan(chunk));
        scanner.finish().iter().map(|name| name.hash_part().to_owned()).collect()
    }

    const HASH: &str = "0123456789abcdfghijklmnpqrsvwxyz";

    #[test]
    fn finds_a_hash_part_across_any_two_chunks() {
        let candidates = Candidates::new([name(HASH)]);
        let stream = format!("eeee{HASH}uuuu");
        for split in 0..stream.len() {
            let (left, right) = stream.as_bytes().split_at(split);
            assert_eq!(scanned(&candidates, &[left, right]), [HASH], "split at {split}");
        }
        let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
        assert_eq!(scanned(&candidates, &bytes), [HASH]);
    }

    #[test]
    fn finds_candidates_that_overlap() {
        let shifted = format!("{}0", &HASH[1..]);
        let candidates = Candidates::new([name(HASH), name(&shifted)]);
        assert_eq!(scanned(&candidates, &[format!("{HASH}0").as_bytes()]), [HASH, &shifted]);
    }

    #[test]
    fn takes_nothing_for_a_reference_that_is_one_character_short() {
        let candidates = Candidates::new([name(HASH)]);
        assert!(scanned(&candidates, &[&HASH.as_bytes()[1..], &HASH.as_bytes()[..31]]).is_empty());
    }

    #[test]
    fn reports_all_names_with_the_same_hash_part() {
        let names = ["a", "b"].map(|name| StoreName::parse(format!("{HASH}-{name}").as_bytes()).unwrap());
        let candidates = Candidates::new([names[1].clone(), names[0].clone(), names[0].clone()]);
        let mut scanner = Scanner::new(&candidates);
        scanner.scan(HASH.as_bytes());
        assert_eq!(scanner.finish(), names);
    }

    #[test]
    fn finds_nothing_without_candidates() {
        assert!(scanned(&Candidates::new([]), &[HASH.as_bytes()]).is_empty());
    }

    proptest! {
        /// Few different characters, and pieces of candidates in the stream: near misses and overlaps are the rule.
        #[test]
        fn agrees_with_a_naive_search(
            hashes in prop::collection::vec("[01a]{32}", 1..6),
            pieces in prop::collection::vec((0usize..8, 0usize..33, 0usize..33, "[01ae/]{0,40}"), 0..30),
            cuts in prop::collection::vec(1usize..70, 1..40),
        ) {
            let mut stream = Vec::new();
            for (which, from, to, filler) in &pieces {
                if let Some(hash) = hashes.get(*which) {
                    let piece = &hash.as_bytes()[*from.min(to).min(&32)..*from.max(to).min(&32)];
                    stream.extend_from_slice(if from % 3 == 0 { hash.as_bytes() } else { piece });
                }
                stream.extend_from_slice(filler.as_bytes());
            }
            let candidates = Candidates::new(hashes.iter().map(|hash| name(hash)));
            let mut expected: Vec<String> = hashes
                .iter()
                .filter(|hash| stream.windows(32).any(|window| window == hash.as_bytes()))
                .cloned()
                .collect();
            expected.sort();
            expected.dedup();
            let mut chunks = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, after) = rest.split_at(rest.len().min(*cut));
                chunks.push(chunk);
                rest = after;
            }
            prop_assert_eq!(scanned(&candidates, &chunks), expected);
        }
    }
}
