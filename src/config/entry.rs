//! A setting as it is shown: its name, its value and where that came from.

/// One setting, for people who ask what it is and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, nesting by dots.
    pub key: String,
    /// Its value.
    pub value: serde_json::Value,
    /// The flag, variable or file that it came from, or `default`.
    pub source: String,
}
