//! A field of a job's input, as a flag says it.

use serde_json::Value;

/// Reads `KEY=VALUE`; the value is JSON if it reads as JSON, else text.
///
/// # Errors
/// It is none, or the prompt.
pub(super) fn field(text: &str) -> Result<(String, Value), String> {
    match text.split_once('=') {
        Some(("prompt", _)) => Err("the prompt is given by itself".to_owned()),
        Some((key, value)) if !key.is_empty() => {
            Ok((key.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
        }
        _ => Err("no KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_is_json_or_text() {
        for (text, key, value) in [
            ("seed=7", "seed", json!(7)),
            ("scheduler=DDIM", "scheduler", json!("DDIM")),
            ("negative_prompt=a=b", "negative_prompt", json!("a=b")),
            ("negative_prompt=", "negative_prompt", json!("")),
            ("seed=null", "seed", json!(null)),
            ("seed=\"7\"", "seed", json!("7")),
        ] {
            assert_eq!(field(text), Ok((key.to_owned(), value)), "{text}");
        }
        assert!(field("seed").is_err());
        assert!(field("=7").is_err());
        assert!(field("prompt=x").is_err_and(|why| why.contains("by itself")));
    }
}
