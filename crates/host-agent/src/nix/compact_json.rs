//! JSON as Nix's library (nlohmann) writes it: no blanks, keys sorted, and its own layout of floating-point numbers.
//!
//! A builder may hash or compare its `.attrs.json`, so the text has to be the same, not only the value.

use serde_json::Value;

/// Numbers from this many digits before the point are written with an exponent, and from this many zeros after it.
const DIGITS_MAX: i32 = 15;
const ZEROS_MAX: i32 = 4;

/// Appends `value`.
pub fn write(value: &Value, to: &mut Vec<u8>) {
    match value {
        Value::Array(items) => {
            to.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    to.push(b',');
                }
                write(item, to);
            }
            to.push(b']');
        }
        Value::Object(object) => {
            let mut entries: Vec<_> = object.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| key.as_bytes());
            to.push(b'{');
            for (index, (key, item)) in entries.into_iter().enumerate() {
                if index > 0 {
                    to.push(b',');
                }
                to.extend_from_slice(Value::from(key.as_str()).to_string().as_bytes());
                to.push(b':');
                write(item, to);
            }
            to.push(b'}');
        }
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => to.extend_from_slice(float_text(float).as_bytes()),
            _ => to.extend_from_slice(number.to_string().as_bytes()),
        },
        Value::Null | Value::Bool(_) | Value::String(_) => to.extend_from_slice(value.to_string().as_bytes()),
    }
}

fn float_text(float: f64) -> String {
    let scientific = format!("{float:e}");
    let (sign, rest) = match scientific.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", scientific.as_str()),
    };
    let (mantissa, exponent) = rest.split_once('e').unwrap_or((rest, "0"));
    let digits = mantissa.replace('.', "");
    let exponent: i32 = exponent.parse().unwrap_or(0);
    // Digits before the point.
    let before = if float == 0.0 { 1 } else { exponent + 1 };
    let count = digits.len() as i32;
    let text = if count <= before && before <= DIGITS_MAX {
        format!("{digits}{}.0", "0".repeat((before - count) as usize))
    } else if 0 < before && before <= DIGITS_MAX {
        format!("{}.{}", &digits[..before as usize], &digits[before as usize..])
    } else if -ZEROS_MAX < before && before <= 0 {
        format!("0.{}{digits}", "0".repeat(-before as usize))
    } else {
        let point = if count > 1 { "." } else { "" };
        let exponent_sign = if exponent < 0 { '-' } else { '+' };
        format!("{}{point}{}e{exponent_sign}{:02}", &digits[..1], &digits[1..], exponent.abs())
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_laid_out_as_nlohmann_does() {
        for (float, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (2.0, "2.0"),
            (1.5, "1.5"),
            (-1234.25, "-1234.25"),
            (0.001, "0.001"),
            (0.00012, "0.00012"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e14, "100000000000000.0"),
            (1e15, "1e+15"),
            (123456789012345680.0, "1.2345678901234568e+17"),
            (1e300, "1e+300"),
        ] {
            assert_eq!(float_text(float), text);
        }
    }

    #[test]
    fn keys_are_sorted_and_nothing_is_padded() {
        let value = serde_json::json!({"b": [1, -2, null, true], "a": {"z": "ü\u{1}\"", "y": 18446744073709551615u64}});
        let mut text = Vec::new();
        write(&value, &mut text);
        insta::assert_snapshot!(String::from_utf8(text).unwrap(), @r#"{"a":{"y":18446744073709551615,"z":"ü\u0001\""},"b":[1,-2,null,true]}"#);
    }
}
