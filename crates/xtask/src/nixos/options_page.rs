//! `nixos/options.md`, from the declarations in `nixos/options.nix`.

use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::instantiate::Instantiate;
use crate::workspace::Workspace;

/// Where the page is, in the repository.
pub const PAGE: &str = "nixos/options.md";

/// The file that evaluates the module, in the repository.
pub const EVALUATE: &str = "nixos/tests/evaluate.nix";

/// One option as `evaluate.nix` shows it.
#[derive(Debug, Deserialize)]
struct NixosOption {
    name: String,
    r#type: String,
    default: Literal,
    example: Literal,
    description: String,
}

/// A value, or the text that stands for it in documentation.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Literal {
    Text { text: String },
    Value { value: Value },
}

/// Writes the page.
pub fn run(workspace: &Workspace) -> Result<bool> {
    let nix = Instantiate::any(&workspace.target).context("this needs nix-instantiate")?;
    let page = workspace.project.join(PAGE);
    fs::write(&page, render(workspace, &nix)?)
        .with_context(|| format!("failed to write {}", page.display()))?;
    println!("{}", page.display());
    Ok(true)
}

/// The page.
pub fn render(workspace: &Workspace, nix: &Instantiate) -> Result<String> {
    let options = nix.evaluate(&workspace.project.join(EVALUATE), "options")?;
    let options: Vec<NixosOption> =
        serde_json::from_value(options).context("the options have another form")?;
    let mut page = "# Options of the NixOS module\n\n\
                    Made from `nixos/options.nix` by `cargo xtask nixos-options`; a test compares.\n"
        .to_owned();
    for option in &options {
        // Writing to a String can't fail.
        let _ = write!(
            page,
            "\n## `{}`\n\n{}\n\n- Type: {}\n- Default: {}\n- Example: {}\n",
            option.name,
            option.description.trim(),
            option.r#type,
            option.default.shown(),
            option.example.shown(),
        );
    }
    Ok(page)
}

impl Literal {
    fn shown(&self) -> String {
        match self {
            Literal::Text { text } => format!("`{text}`"),
            Literal::Value { value } => format!("`{}`", nix_expression(value)),
        }
    }
}

/// A value as one writes it in Nix.
fn nix_expression(value: &Value) -> String {
    match value {
        Value::Array(items) if items.is_empty() => "[ ]".into(),
        Value::Array(items) => {
            format!("[ {} ]", items.iter().map(nix_expression).collect::<Vec<_>>().join(" "))
        }
        Value::Object(entries) if entries.is_empty() => "{ }".into(),
        Value::Object(entries) => {
            let entries = entries.iter().map(|(key, value)| format!("{key} = {};", nix_expression(value)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_one_writes_them() {
        let shown = |json: &str| nix_expression(&serde_json::from_str(json).unwrap());
        assert_eq!(shown(r#"["a", 1]"#), r#"[ "a" 1 ]"#);
        assert_eq!(shown(r#"{"a": {"b": null}}"#), "{ a = { b = null; }; }");
        assert_eq!(shown("[]"), "[ ]");
        assert_eq!(shown("{}"), "{ }");
    }
}
