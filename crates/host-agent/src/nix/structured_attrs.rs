//! `.attrs.json` and `.attrs.sh`: structured attributes as a builder sees them.

use serde_json::{Map, Value};

use super::compact_json;
use super::placeholder;

/// Name of the JSON file in the build directory.
pub const JSON_FILE: &str = ".attrs.json";
/// Name of the shell file in the build directory.
pub const SHELL_FILE: &str = ".attrs.sh";

/// The derivation's object with what Nix adds: `outputs` (placeholders, to be replaced in the finished text) and one
/// entry per exported references graph.
pub fn complete<'a>(
    object: &Map<String, Value>,
    outputs: impl Iterator<Item = &'a String>,
    graphs: Vec<(String, Value)>,
) -> Map<String, Value> {
    let mut object = object.clone();
    let outputs = outputs.map(|name| (name.clone(), Value::from(placeholder::of_output(name))));
    object.insert("outputs".into(), Value::Object(outputs.collect()));
    object.extend(graphs);
    object
}

/// Contents of `.attrs.json`.
pub fn json(object: &Map<String, Value>) -> Vec<u8> {
    let mut text = Vec::new();
    compact_json::write(&Value::Object(object.clone()), &mut text);
    text
}

/// Contents of `.attrs.sh`: a declaration for every attribute that Bash can hold, which are scalars and flat lists and
/// objects of them (Nix `writeStructuredAttrsShell`).
pub fn shell(object: &Map<String, Value>) -> Vec<u8> {
    let mut entries: Vec<_> = object.iter().filter(|(key, _)| is_variable(key)).collect();
    entries.sort_unstable_by_key(|(key, _)| key.as_bytes());
    let mut text = String::new();
    for (key, value) in entries {
        let line = match value {
            Value::Array(items) => {
                let items: Option<String> = items.iter().map(|item| Some(scalar(item)? + " ")).collect();
                items.map(|items| format!("declare -a {key}=({items})\n"))
            }
            Value::Object(fields) => {
                let mut fields: Vec<_> = fields.iter().collect();
                fields.sort_unstable_by_key(|(name, _)| name.as_bytes());
                let fields: Option<String> = fields
                    .into_iter()
                    .map(|(name, item)| Some(format!("[{}]={} ", quote(name), scalar(item)?)))
                    .collect();
                fields.map(|fields| format!("declare -A {key}=({fields})\n"))
            }
            _ => scalar(value).map(|value| format!("declare {key}={value}\n")),
        };
        text.push_str(&line.unwrap_or_default());
    }
    text.into_bytes()
}

fn is_variable(key: &str) -> bool {
    key.bytes().enumerate().all(|(index, byte)| {
        byte == b'_' || byte.is_ascii_alphabetic() || (index > 0 && byte.is_ascii_digit())
    }) && !key.is_empty()
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(quote(text)),
        Value::Null => Some("''".into()),
        Value::Bool(true) => Some("1".into()),
        Value::Bool(false) => Some(String::new()),
        Value::Number(number) => {
            // Nix asks whether the number is whole in single precision, then prints it as a C `int`: wrapped if it was
            // an integer, the smallest `int` if it was a float out of range (what x86 makes of the conversion).
            let float = number.as_f64()?;
            if (float as f32).ceil() != float as f32 {
                return None;
            }
            let int = match (number.as_i64(), number.as_u64()) {
                (Some(whole), _) => whole as i32,
                (None, Some(whole)) => whole as i32,
                (None, None) if (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&float.trunc()) => {
                    float as i32
                }
                (None, None) => i32::MIN,
            };
            Some(int.to_string())
        }
        Value::Array(_) | Value::Object(_) => None,
    }
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: &str) -> Map<String, Value> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn declares_what_bash_can_hold_and_leaves_out_the_rest() {
        let object = object(
            r#"{"list":[1,2,"x"],"f":false,"t":true,"nul":null,"quote":"it's","frac":1.5,"whole":2.0,
                "nested":{"a":{"b":1}},"listlist":[[1]],"map":{"b":"2","a":1},"bad-name":1,"9":1,"_ok9":"","empty":[],
                "mixed":[1,1.5],"big":3000000000,"huge":1e20}"#,
        );
        insta::assert_snapshot!(String::from_utf8(shell(&object)).unwrap(), @r"
        declare _ok9=''
        declare big=-1294967296
        declare -a empty=()
        declare f=
        declare huge=-2147483648
        declare -a list=(1 2 'x' )
        declare -A map=(['a']=1 ['b']='2' )
        declare nul=''
        declare quote='it'\''s'
        declare t=1
        declare whole=2
        ");
    }

    #[test]
    fn outputs_replace_whatever_the_derivation_has_under_that_name() {
        let names = ["dev".to_owned(), "out".to_owned()];
        let complete = complete(&object(r#"{"outputs":["dev","out"],"a":1}"#), names.iter(), Vec::new());
        let text = String::from_utf8(json(&complete)).unwrap();
        assert_eq!(
            text,
            format!(
                r#"{{"a":1,"outputs":{{"dev":"{}","out":"{}"}}}}"#,
                placeholder::of_output("dev"),
                placeholder::of_output("out")
            )
        );
    }
}
