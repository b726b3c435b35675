//! JSON as Python writes it.

use serde_json::Value;

/// Reads JSON in which the bare `Infinity` and `NaN` of Python are null: DPM-Solver's configurations have `"lambda_min_clipped": -Infinity`.
///
/// # Errors
/// The text is not JSON, not even Python's.
pub(super) fn parse(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str(&without_infinities(text))
}

/// JSON text with Python's bare `NaN`, `Infinity` and `-Infinity` made null, outside of strings.
fn without_infinities(text: &str) -> String {
    // Cut at quotes, every other piece is in a string; a quote after a backslash does not end one.
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('"') {
        out.push_str(&bare_to_null(&rest[..start]));
        let mut escaped = false;
        let end = rest[start + 1..].find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let Some(end) = end else { break };
        let next = start + end + 2;
        out.push_str(&rest[start..next]);
        rest = &rest[next..];
    }
    out + &bare_to_null(rest)
}

fn bare_to_null(text: &str) -> String {
    text.replace("-Infinity", "null").replace("Infinity", "null").replace("NaN", "null")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pythons_infinities_are_null_outside_of_strings() {
        let text = r#"{"a": -Infinity, "NaN \" Infinity": [NaN, Infinity], "c\\": "-Infinity"}"#;
        let expected = r#"{"a": null, "NaN \" Infinity": [null, null], "c\\": "-Infinity"}"#;
        assert_eq!(without_infinities(text), expected);
        assert!(parse("{\"a").is_err());
    }
}
