//! Weights in several files: what diffusers and transformers call the index of such files, and which files it names.

use std::collections::BTreeSet;

use serde_json::Value;

/// Bytes of an index: one of ten thousand tensors has a tenth.
pub const INDEX_BYTES: u64 = 16 << 20;

/// An index that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShardIndexError {
    /// It is no JSON.
    #[error("is no JSON: {0}")]
    Json(String),
    /// It does not say which tensor is in which file.
    #[error("has no weight_map, in which each tensor's name has the name of a file")]
    Map,
    /// It names a file that lies elsewhere, or has no weights.
    #[error("names {0:?}: use the name of a .safetensors file beside it")]
    Name(String),
}

/// What the weights `stem` may be called, as one file first, and then as the index of several. `variant` is their precision, as in `fp16`;
/// without it they are the full ones.
pub fn weight_names(stem: &str, variant: Option<&str>) -> Vec<String> {
    match variant {
        None => vec![format!("{stem}.safetensors"), format!("{stem}.safetensors.index.json")],
        // As both libraries write an index today, as diffusers once did, and as converters do.
        Some(variant) => vec![
            format!("{stem}.{variant}.safetensors"),
            format!("{stem}.safetensors.index.{variant}.json"),
            format!("{stem}.safetensors.{variant}.index.json"),
            format!("{stem}.{variant}.safetensors.index.json"),
        ],
    }
}

/// Whether a file is called as an index is.
pub fn is_index(name: &str) -> bool {
    name.strip_suffix(".json").is_some_and(|rest| rest.contains(".safetensors") && rest.contains(".index"))
}

/// The files that an index of the text `index` names, each once, in ascending order.
///
/// # Errors
/// It is no index, or names what is no weight file beside it.
pub fn shards(index: &[u8]) -> Result<Vec<String>, ShardIndexError> {
    let index: Value = serde_json::from_slice(index).map_err(|cause| ShardIndexError::Json(cause.to_string()))?;
    let map = index["weight_map"].as_object().filter(|map| !map.is_empty()).ok_or(ShardIndexError::Map)?;
    let names: Option<BTreeSet<&str>> = map.values().map(Value::as_str).collect();
    let names = names.ok_or(ShardIndexError::Map)?;
    let is_file = |name: &str| name.ends_with(".safetensors") && !name.starts_with('.') && !name.contains(['/', '\\']);
    match names.iter().find(|name| !is_file(name)) {
        Some(name) => Err(ShardIndexError::Name((*name).to_owned())),
        None => Ok(names.into_iter().map(str::to_owned).collect()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn weights_are_called_as_libraries_call_them() {
        assert_eq!(weight_names("model", None), ["model.safetensors", "model.safetensors.index.json"]);
        let half = weight_names("diffusion_pytorch_model", Some("fp16"));
        assert_eq!(
            half,
            [
                "diffusion_pytorch_model.fp16.safetensors",
                "diffusion_pytorch_model.safetensors.index.fp16.json",
                "diffusion_pytorch_model.safetensors.fp16.index.json",
                "diffusion_pytorch_model.fp16.safetensors.index.json",
            ]
        );
        assert!(half[1..].iter().all(|name| is_index(name)) && is_index("model.safetensors.index.json"));
        for other in ["config.json", "model_index.json", "pytorch_model.bin.index.json", "a.safetensors", "", &half[0]]
        {
            assert!(!is_index(other), "{other}");
        }
    }

    #[test]
    fn each_file_is_named_once() {
        let map = |map: Value| shards(json!({"metadata": {}, "weight_map": map}).to_string().as_bytes());
        let [first, second] = ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"];
        assert_eq!(map(json!({"a": second, "b": first, "c": second})), Ok(vec![first.into(), second.into()]));
        assert_eq!(map(json!({})), Err(ShardIndexError::Map));
        assert_eq!(map(json!({"a": 1})), Err(ShardIndexError::Map));
        assert_eq!(shards(b"[]"), Err(ShardIndexError::Map));
        assert!(matches!(shards(b"{"), Err(ShardIndexError::Json(_))));
        for wrong in
            ["../a.safetensors", "/a.safetensors", "b/a.safetensors", "b\\a.safetensors", ".safetensors", "a.bin", ""]
        {
            assert_eq!(map(json!({"a": first, "b": wrong})), Err(ShardIndexError::Name(wrong.into())), "{wrong}");
        }
    }
}
