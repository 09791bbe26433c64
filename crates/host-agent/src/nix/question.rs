//! What Nix asks a hook, and what it sends once the hook has accepted.

use std::io::Read;

use super::wire::{self, ListLimits, WireError, WireReader};

/// Linux refuses longer paths (`PATH_MAX`), and Nix can't create them.
const PATH_MAX: u64 = 4096;
/// System types and feature names are words; nothing near this exists.
const WORD_MAX: u64 = 4096;
const FEATURES: ListLimits = ListLimits { count: 4096, element: WORD_MAX, total: 1 << 20 };
/// The largest closures have some hundred thousand paths; the bytes are bounded as the request made of them is.
const INPUTS: ListLimits =
    ListLimits { count: 4 << 20, element: PATH_MAX, total: crate::control::message::REQUEST_MAX as u64 };
/// No derivation comes near; nixpkgs' richest have about twenty.
const OUTPUTS: ListLimits = ListLimits { count: 65_536, element: PATH_MAX, total: 16 << 20 };

/// The first word of a question.
const TRY: &[u8] = b"try";

/// May this derivation be built here?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Nix has a free local slot. Says nothing about whether it could build this.
    pub willing: bool,
    /// The derivation's system.
    pub system: Vec<u8>,
    /// Absolute path of the derivation.
    pub derivation: Vec<u8>,
    /// What it requires; floating content-addressed derivations add `ca-derivations`.
    pub features: Vec<Vec<u8>>,
}

/// What follows an accepted question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Absolute paths: the closure of all that the derivation uses.
    pub inputs: Vec<Vec<u8>>,
    /// Names of the outputs that are not valid yet. Nix 2.3 sends their paths instead.
    pub wanted: Vec<Vec<u8>>,
}

impl Question {
    /// The next question, `None` when Nix has no more.
    ///
    /// After a `decline` there may be the declined question's inputs and outputs first (a branch of Nix sends them
    /// before it reads the reply); they are skipped. A set of three can't be mistaken for a question: its first
    /// element would have to be longer than the cap.
    pub fn read<R: Read>(reader: &mut WireReader<R>) -> Result<Option<Self>, WireError> {
        while !reader.at_end()? {
            let ahead = reader.peek(16, "a question")?;
            if ahead.len() < 8 {
                return Err(WireError::Truncated("a question"));
            }
            if ahead == b"\x03\0\0\0\0\0\0\0try\0\0\0\0\0" {
                return Self::read_after_peek(reader).map(Some);
            }
            Order::read(reader)?;
        }
        Ok(None)
    }

    fn read_after_peek<R: Read>(reader: &mut WireReader<R>) -> Result<Self, WireError> {
        reader.string(TRY.len() as u64, "a question")?;
        Ok(Self {
            willing: reader.integer("a question's willingness")? != 0,
            system: reader.string(WORD_MAX, "a question's system")?,
            derivation: reader.string(PATH_MAX, "a question's derivation")?,
            features: reader.strings(FEATURES, "a question's features")?,
        })
    }

    /// The question again, for the hook that we chain to.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        wire::put_string(&mut bytes, TRY);
        wire::put_integer(&mut bytes, self.willing.into());
        wire::put_string(&mut bytes, &self.system);
        wire::put_string(&mut bytes, &self.derivation);
        wire::put_strings(&mut bytes, &self.features);
        bytes
    }
}

impl Order {
    /// Reads inputs and wanted outputs.
    pub fn read<R: Read>(reader: &mut WireReader<R>) -> Result<Self, WireError> {
        Ok(Self {
            inputs: reader.strings(INPUTS, "the inputs")?,
            wanted: reader.strings(OUTPUTS, "the wanted outputs")?,
        })
    }
}

/// Reads all that a hook could be told: settings, then questions, with what follows them. For tests and fuzzing.
pub fn read_session(
    bytes: &[u8],
) -> Result<(super::settings::Settings, Vec<Question>), super::settings::SettingsError> {
    let mut reader = WireReader::new(bytes);
    let settings = super::settings::Settings::read(&mut reader)?;
    let mut questions = Vec::new();
    while let Some(question) = Question::read(&mut reader)? {
        questions.push(question);
    }
    Ok((settings, questions))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What Nix 2.8.0 sends after its settings for a derivation that requires `big-parallel kvm`.
    const CAPTURED: &[u8] = b"\
        \x03\0\0\0\0\0\0\0try\0\0\0\0\0\
        \x01\0\0\0\0\0\0\0\
        \x0d\0\0\0\0\0\0\0x86_64-darwin\0\0\0\
        \x31\0\0\0\0\0\0\0/nix/store/cxhqjar30r5nxf38dv9dr2l79cnbprnx-t.drv\0\0\0\0\0\0\0\
        \x02\0\0\0\0\0\0\0\x0c\0\0\0\0\0\0\0big-parallel\0\0\0\0\x03\0\0\0\0\0\0\0kvm\0\0\0\0\0";
    const CAPTURED_ORDER: &[u8] = b"\
        \x02\0\0\0\0\0\0\0\
        \x33\0\0\0\0\0\0\0/nix/store/86zk1hg65gxgl73mdz8hp3g2nmmbsdh5-src.txt\0\0\0\0\0\
        \x2f\0\0\0\0\0\0\0/nix/store/dz69kgl8zhrl7g01iw4688gzafl4n5bk-dep\0\
        \x01\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0out\0\0\0\0\0";

    #[test]
    fn reads_what_nix_sends() {
        let question = Question::read(&mut WireReader::new(CAPTURED)).unwrap().unwrap();
        assert!(question.willing);
        assert_eq!(question.system, b"x86_64-darwin");
        assert_eq!(question.derivation, b"/nix/store/cxhqjar30r5nxf38dv9dr2l79cnbprnx-t.drv");
        assert_eq!(question.features, [b"big-parallel".to_vec(), b"kvm".to_vec()]);
        assert_eq!(question.encode(), CAPTURED);

        let order = Order::read(&mut WireReader::new(CAPTURED_ORDER)).unwrap();
        assert_eq!(order.inputs[1], b"/nix/store/dz69kgl8zhrl7g01iw4688gzafl4n5bk-dep");
        assert_eq!(order.wanted, [b"out"]);
    }

    #[test]
    fn skips_the_inputs_of_a_declined_question() {
        let bytes = [CAPTURED, CAPTURED_ORDER, CAPTURED].concat();
        let mut reader = WireReader::new(&bytes[..]);
        assert!(Question::read(&mut reader).unwrap().is_some());
        assert!(Question::read(&mut reader).unwrap().is_some());
        assert_eq!(Question::read(&mut reader).unwrap(), None);
    }

    #[test]
    fn names_what_was_cut_off() {
        for (cut, message) in [
            (4, "input ended in the middle of a question"),
            (16, "input ended in the middle of a question's willingness"),
            (60, "input ended in the middle of a question's derivation"),
            (CAPTURED.len() - 1, "input ended in the middle of a question's features"),
        ] {
            let error = Question::read(&mut WireReader::new(&CAPTURED[..cut])).unwrap_err();
            assert_eq!(error.to_string(), message, "cut at {cut}");
        }
    }

    #[test]
    fn refuses_another_protocol() {
        let error = Question::read(&mut WireReader::new(&[0xff; 64][..])).unwrap_err();
        insta::assert_snapshot!(error, @"the inputs with 18446744073709551615 elements exceeds the limit of 4194304");
    }

    proptest! {
        #[test]
        fn any_session_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_session(&bytes);
        }

        #[test]
        fn questions_come_back(
            willing: bool,
            system in proptest::collection::vec(any::<u8>(), 0..30),
            derivation in proptest::collection::vec(any::<u8>(), 0..90),
            features in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..4),
        ) {
            let question = Question { willing, system, derivation, features };
            let read = Question::read(&mut WireReader::new(&question.encode()[..])).unwrap();
            prop_assert_eq!(read, Some(question));
        }
    }
}
