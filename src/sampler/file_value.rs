//! Values of a scheduler file.

use serde_json::Value;

/// A key whose value is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnsupportedKey {
    pub(super) key: String,
    /// As JSON, cut if it is long.
    pub(super) value: String,
}

impl UnsupportedKey {
    pub(super) fn of(key: &str, value: &Value) -> Self {
        let mut text = value.to_string();
        if let Some((cut, _)) = text.char_indices().nth(60) {
            text.truncate(cut);
            text.push('…');
        }
        Self { key: key.to_owned(), value: text }
    }
}

/// What the text `value` stands for among `choices`.
pub(super) fn one_of<T: Copy>(value: &Value, choices: &[(&str, T)]) -> Option<T> {
    let value = value.as_str()?;
    choices.iter().find(|(name, _)| *name == value).map(|&(_, choice)| choice)
}
