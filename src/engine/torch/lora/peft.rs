//! What PEFT writes about a LoRA into its file's header: the strength that it was trained at.

use serde_json::{Map, Value};

/// The header's key.
pub(super) const KEY: &str = "lora_adapter_metadata";

/// Settings of PEFT's `LoraConfig`, each under the name of its part, such as `unet.`; empty where a file says nothing.
#[derive(Debug, Default)]
pub(super) struct PeftMetadata(Map<String, Value>);

impl PeftMetadata {
    /// # Errors
    /// It is no JSON object, or says that the matrices mean something else.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let Ok(Value::Object(metadata)) = serde_json::from_str(text) else {
            return Err(format!("{KEY} in its header is no JSON object"));
        };
        let dora = metadata.iter().find(|(key, value)| key.ends_with(".use_dora") && **value == Value::Bool(true));
        match dora {
            Some((key, _)) => Err(format!("{key} is set in its header; DoRA is not supported, only LoRA is")),
            None => Ok(Self(metadata)),
        }
    }

    /// What the product of `module`'s matrices is multiplied by: alpha over rank, 1 where nothing is said.
    ///
    /// # Errors
    /// A pattern of names that is more than a name, or an alpha that is no number.
    pub(super) fn strength(&self, part: &str, module: &str, rank: f64) -> Result<f64, String> {
        let of = |key: &str| self.0.get(&format!("{part}.{key}"));
        let number = |key: &str, value: &Value| {
            value.as_f64().ok_or_else(|| format!("{part}.{key} in its header is {value}; it must be a number"))
        };
        let mut alpha =
            of("lora_alpha").filter(|value| !value.is_null()).map_or(Ok(rank), |value| number("lora_alpha", value))?;
        for (pattern, value) in of("alpha_pattern").and_then(Value::as_object).into_iter().flatten() {
            if matches(pattern, module)? {
                alpha = number("alpha_pattern", value)?;
                break;
            }
        }
        let rank_stabilised = of("use_rslora") == Some(&Value::Bool(true));
        Ok(alpha / if rank_stabilised { rank.sqrt() } else { rank })
    }
}

/// PEFT's patterns are regular expressions for the end of a name; what is written are names, whole ones behind a `^`.
fn matches(pattern: &str, module: &str) -> Result<bool, String> {
    let (name, whole) = pattern.strip_prefix('^').map_or((pattern, false), |name| (name, true));
    // transformers once had the text encoder inside of another module.
    let name = name.strip_prefix("text_model.").unwrap_or(name);
    if name.contains(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.') {
        return Err(format!("alpha_pattern in its header has {pattern:?}; only names are supported there"));
    }
    Ok(module == name || (!whole && module.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn strength(metadata: &Value, module: &str) -> Result<f64, String> {
        PeftMetadata::read(&metadata.to_string())?.strength("unet", module, 4.0)
    }

    #[test]
    fn alpha_over_rank() {
        assert_eq!(PeftMetadata::default().strength("unet", "conv_in", 4.0), Ok(1.0));
        assert_eq!(strength(&json!({"text_encoder.lora_alpha": 8}), "conv_in"), Ok(1.0));
        assert_eq!(strength(&json!({"unet.lora_alpha": 8}), "conv_in"), Ok(2.0));
        assert_eq!(strength(&json!({"unet.lora_alpha": 8, "unet.use_rslora": true}), "conv_in"), Ok(4.0));
    }

    #[test]
    fn an_alpha_that_is_no_number_is_refused() {
        for metadata in [json!({"unet.lora_alpha": "8"}), json!({"unet.alpha_pattern": {"conv_in": [2]}})] {
            assert!(strength(&metadata, "conv_in").unwrap_err().contains("must be a number"));
        }
    }

    #[test]
    fn a_pattern_is_the_end_of_a_name() {
        let metadata = |pattern: &str| json!({"unet.lora_alpha": 8, "unet.alpha_pattern": {pattern: 2}});
        for (pattern, expected) in [
            ("to_q", 0.5),
            ("attn1.to_q", 0.5),
            ("mid.attn1.to_q", 0.5),
            ("^mid.attn1.to_q", 0.5),
            ("^to_q", 2.0),
            ("o_q", 2.0),
            ("to_k", 2.0),
        ] {
            assert_eq!(strength(&metadata(pattern), "mid.attn1.to_q"), Ok(expected), "{pattern}");
        }
        assert!(strength(&metadata(".*to_q"), "mid.attn1.to_q").unwrap_err().contains("alpha_pattern"));
    }

    #[test]
    fn what_means_something_else_is_refused() {
        assert!(strength(&json!({"unet.use_dora": true}), "conv_in").unwrap_err().contains("unet.use_dora"));
        assert!(PeftMetadata::read("[]").is_err() && PeftMetadata::read("{").is_err());
    }
}
