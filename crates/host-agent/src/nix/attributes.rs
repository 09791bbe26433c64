//! A derivation's attributes: strings in its environment or, with structured attributes, one JSON object.
//!
//! The same names mean the same in both; only their types differ (`true` is `1` in the environment, lists are separated
//! by blanks).

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};
use thiserror::Error;

/// Environment entry that holds structured attributes.
pub const STRUCTURED: &[u8] = b"__json";

/// Attributes, as the derivation has them.
#[derive(Debug, Clone, PartialEq)]
pub enum Attributes {
    /// Each is an environment variable.
    Environment(BTreeMap<Vec<u8>, Vec<u8>>),
    /// One JSON object; none becomes an environment variable.
    Structured(Map<String, Value>),
}

// JSON numbers have no NaN, so equality is reflexive.
impl Eq for Attributes {}

/// Why an attribute can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AttributeError {
    /// `__json` is not a JSON object.
    #[error("`__json` is not a JSON object: {0}")]
    Json(String),
    /// An attribute is of another type.
    #[error("attribute '{name}' is not {expected}")]
    Type {
        /// Its name.
        name: String,
        /// What it should be.
        expected: &'static str,
    },
}

impl Attributes {
    /// From the environment part of a derivation.
    pub fn new(environment: BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Self, AttributeError> {
        match environment.get(STRUCTURED) {
            None => Ok(Self::Environment(environment)),
            Some(json) => serde_json::from_slice(json)
                .map(Self::Structured)
                .map_err(|error| AttributeError::Json(error.to_string())),
        }
    }

    /// A list of strings; `None` if it is absent, which may mean another thing than an empty one.
    pub fn strings(&self, name: &str) -> Result<Option<Vec<Vec<u8>>>, AttributeError> {
        match self {
            Self::Environment(environment) => {
                Ok(environment.get(name.as_bytes()).map(|value| words(value).map(<[u8]>::to_vec).collect()))
            }
            Self::Structured(object) => object.get(name).map(|value| strings(value, name)).transpose(),
        }
    }

    /// A string; `None` if it is absent or something else.
    pub fn text(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Environment(environment) => environment.get(name.as_bytes()).map(|value| value.into()),
            Self::Structured(object) => object.get(name)?.as_str().map(|text| text.as_bytes().into()),
        }
    }

    /// The JSON value of this name, with structured attributes only.
    pub fn structured(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Environment(_) => None,
            Self::Structured(object) => object.get(name),
        }
    }
}

/// A JSON array of strings as byte strings; `name` is for the error only.
pub fn strings(value: &Value, name: &str) -> Result<Vec<Vec<u8>>, AttributeError> {
    value
        .as_array()
        .and_then(|items| {
            items.iter().map(|item| item.as_str().map(|text| text.as_bytes().to_vec())).collect()
        })
        .ok_or_else(|| AttributeError::Type { name: name.to_owned(), expected: "a list of strings" })
}

/// The words of a blank-separated list (Nix `tokenizeString`).
pub fn words(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| b" \t\n\r".contains(byte)).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn lists_are_words_or_arrays_and_absent_is_not_empty() {
        let plain = Attributes::new(environment(&[("a", " x\ty \n"), ("b", "")])).unwrap();
        assert_eq!(plain.strings("a").unwrap(), Some(vec![b"x".to_vec(), b"y".to_vec()]));
        assert_eq!(plain.strings("b").unwrap(), Some(vec![]));
        assert_eq!(plain.strings("c").unwrap(), None);
        let structured = Attributes::new(environment(&[("__json", r#"{"a":["x","y z"],"b":[]}"#)])).unwrap();
        assert_eq!(structured.strings("a").unwrap(), Some(vec![b"x".to_vec(), b"y z".to_vec()]));
        assert_eq!(structured.strings("b").unwrap(), Some(vec![]));
        assert_eq!(structured.strings("c").unwrap(), None);
    }

    #[test]
    fn says_which_attribute_has_the_wrong_type() {
        let structured = Attributes::new(environment(&[("__json", r#"{"a":["x",1]}"#)])).unwrap();
        insta::assert_snapshot!(structured.strings("a").unwrap_err(), @"attribute 'a' is not a list of strings");
        let error = Attributes::new(environment(&[("__json", "[1]")])).unwrap_err();
        insta::assert_snapshot!(error, @"`__json` is not a JSON object: invalid type: sequence, expected a map at line 1 column 0");
    }
}
