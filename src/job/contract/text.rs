//! What contracts have in common.

use serde_json::Value;

use crate::job::spec::LoadedImage;

/// Bytes of a prompt. A model reads about 300 of them; the rest would only be counted.
pub(super) const PROMPT_BYTES: usize = 32 * 1024;

/// What an input names an image by that must not be shown.
pub(super) fn digest(image: &LoadedImage) -> Value {
    format!("sha256:{}", image.sha256).into()
}

/// `a, b or c`.
pub(in crate::job) fn either(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    match names.as_slice() {
        [names @ .., last] if !names.is_empty() => format!("{} or {last}", names.join(", ")),
        names => names.concat(),
    }
}
