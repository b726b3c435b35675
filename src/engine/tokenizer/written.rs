//! What the files of a tokenizer hold, as they are written.

use serde::Deserialize;
use tokenizers::AddedToken;
use tokenizers::models::bpe::Vocab;

/// A token as a file writes it in full.
#[derive(Debug, Clone, Default, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the file")]
pub(super) struct Written {
    pub(super) content: String,
    #[serde(default)]
    pub(super) single_word: bool,
    #[serde(default)]
    pub(super) lstrip: bool,
    #[serde(default)]
    pub(super) rstrip: bool,
    /// Whether it is looked for in the normalized text; if left open, special tokens are not.
    pub(super) normalized: Option<bool>,
    #[serde(default)]
    pub(super) special: bool,
}

impl Written {
    /// The token for the library, as a special one or not.
    pub(super) fn added(&self, special: bool) -> AddedToken {
        AddedToken::from(self.content.as_str(), special)
            .normalized(self.normalized.unwrap_or(!special))
            .single_word(self.single_word)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip)
    }
}

/// Two are equal if the library would get the same, whether or not a file spells the defaults out.
impl PartialEq for Written {
    fn eq(&self, other: &Self) -> bool {
        self.added(self.special) == other.added(other.special)
    }
}

/// An entry of `added_tokens` in `tokenizer.json`.
#[derive(Debug, Deserialize)]
pub(super) struct Numbered {
    pub(super) id: u32,
    #[serde(flatten)]
    pub(super) token: Written,
}

/// What counts of a `tokenizer.json`: the rest of it describes the pipeline, which is always CLIP's.
#[derive(Deserialize)]
pub(super) struct Serialized {
    #[serde(default)]
    pub(super) added_tokens: Vec<Numbered>,
    pub(super) model: SerializedModel,
}

#[derive(Deserialize)]
pub(super) struct SerializedModel {
    pub(super) vocab: Vocab,
    pub(super) merges: Vec<Merge>,
}

/// Files of before and after `tokenizers` 0.20 write a merge as `"a b"` and as `["a", "b"]`.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Merge {
    Line(String),
    Pair(String, String),
}
