//! The units of systemd's, rendered from the one source that the NixOS module reads as well (`units/darling-builder.toml`).
//!
//! The source says what a value may be and which placeholders there are; anything else in it is an error of ours, which a
//! test would show.

use std::path::Path;

use thiserror::Error;
use toml::{Table, Value};

use crate::config::Config;

const SOURCE: &str = include_str!("../../../../units/darling-builder.toml");

/// The unit of the daemon.
pub const SERVICE: &str = "darling-builder.service";
/// The unit of its socket.
pub const SOCKET: &str = "darling-builder.socket";

/// The source is not as it says.
#[derive(Debug, Error)]
pub enum UnitError {
    /// It is no TOML.
    #[error("failed to read the source of the units: {0}")]
    Source(#[from] toml::de::Error),
    /// Something in it is not understood.
    #[error("failed to render the units: {0}")]
    Value(String),
    /// A path that a unit can't name.
    #[error(
        "failed to write {0} into a unit of systemd's, which would read it otherwise: use a path of letters, digits and \
         /._+-=,~ only"
    )]
    Path(String),
}

/// What the placeholders stand for.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// `host-agent`.
    pub program: &'a Path,
    /// Its configuration file.
    pub config_file: &'a Path,
    /// What that file says.
    pub config: &'a Config,
}

/// Name and text of both units.
pub fn render(places: Places<'_>) -> Result<[(&'static str, String); 2], UnitError> {
    let source: Table = SOURCE.parse()?;
    let words = [
        ("@HOST_AGENT@", plain(places.program)?),
        ("@CONFIG@", plain(places.config_file)?),
        ("@SOCKET@", plain(&places.config.socket)?),
        ("@STORE@", plain(&places.config.store_directory)?),
        ("@STATE@", plain(&places.config.state_directory)?),
        ("@SHELL@", "/bin/sh"),
    ];
    let unit = |name: &str| match source.get(name) {
        Some(Value::Table(sections)) => unit(sections, &words),
        _ => Err(UnitError::Value(format!("there is no [{name}]"))),
    };
    Ok([(SERVICE, unit("service")?), (SOCKET, unit("socket")?)])
}

fn unit(sections: &Table, words: &[(&str, &str)]) -> Result<String, UnitError> {
    let mut text =
        String::from("# Made by host-agent from its units/darling-builder.toml, which gives the reasons.\n");
    for (name, section) in sections {
        let section = section.as_table().ok_or_else(|| UnitError::Value(format!("{name} is no table")))?;
        text.push_str(&format!("\n[{name}]\n"));
        for (key, value) in section {
            for value in value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice) {
                text.push_str(&format!("{key}={}\n", scalar(key, value, words)?));
            }
        }
    }
    Ok(text)
}

fn scalar(key: &str, value: &Value, words: &[(&str, &str)]) -> Result<String, UnitError> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Boolean(flag) => flag.to_string(),
        Value::Integer(number) => number.to_string(),
        _ => {
            return Err(UnitError::Value(format!(
                "the value of {key} is no string, boolean, integer or list"
            )));
        }
    };
    let text = words.iter().fold(text, |text, (word, path)| text.replace(word, path));
    let placeholder =
        text.split('@').skip(1).any(|rest| rest.starts_with(|first: char| first.is_ascii_uppercase()));
    match placeholder || text.contains('\n') {
        true => Err(UnitError::Value(format!("{key} has a placeholder that is not known, or a line break"))),
        false => Ok(text),
    }
}

/// A path in which systemd sees no specifier, quote or blank.
fn plain(path: &Path) -> Result<&str, UnitError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/._+-=,~".contains(&byte);
    path.to_str()
        .filter(|text| path.is_absolute() && text.bytes().all(fits))
        .ok_or_else(|| UnitError::Path(path.display().to_string()))
}
