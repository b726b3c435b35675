//! What is wrong with a configuration: each fault says where it came from and what would be right.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::entry::Entry;

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFault {
    /// A setting has a value that it cannot have.
    #[error("{key} = {value} (from {origin}) is not possible: use {allowed}")]
    Value {
        /// The setting, nesting by dots.
        key: String,
        /// What was given.
        value: String,
        /// Variable, flag or file.
        origin: String,
        /// What may be given.
        allowed: String,
    },
    /// There is no such setting. Its value is not told: it could be a secret that strayed.
    #[error("{key} (from {origin}) is no setting{}", match hint {
        Some(near) => format!("; did you mean {near}?"),
        None => "; `latentd config show` lists them all".to_owned(),
    })]
    Unknown {
        /// What was given for a setting.
        key: String,
        /// Variable or file.
        origin: String,
        /// The setting of the most similar name.
        hint: Option<String>,
    },
    /// A configuration file was asked for by name and cannot be read.
    #[error("the configuration file {} (from {origin}) cannot be read: {cause}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// Variable or flag.
        origin: &'static str,
        /// Why not.
        cause: io::Error,
    },
    /// A configuration file is not TOML.
    #[error("{} is not valid TOML: {cause}", path.display())]
    Syntax {
        /// Its path.
        path: PathBuf,
        /// What is wrong and where.
        cause: String,
    },
}

impl ConfigFault {
    /// The fault of a setting that is among `entries`.
    pub(super) fn of(entries: &[Entry], key: &str, allowed: String) -> Self {
        let entry = entries.iter().find(|entry| entry.key == key);
        let (value, origin) = entry.map(|entry| (entry.value.to_string(), entry.source.clone())).unwrap_or_default();
        Self::Value { key: key.into(), value, origin, allowed }
    }
}

/// Everything that is wrong with a configuration, one fault a line.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError(pub Vec<ConfigFault>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ConfigFault::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}
