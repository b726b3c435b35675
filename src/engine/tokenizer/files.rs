//! The files of a tokenizer's folder, and what can be wrong with them.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::disk::whole;

/// Bytes of a file: a vocabulary of a million words has less.
const MAX_FILE: u64 = 64 << 20;

/// Why a tokenizer could not be loaded, or a text not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file could not be read.
    #[error("{}: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// A file was read and is not what it should be.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file, or the folder if it is about several.
        path: PathBuf,
        /// What is wrong, with the line, key or token at fault.
        reason: String,
    },
    /// A text was refused.
    #[error("a text of {bytes} bytes cannot be tokenized: {reason}")]
    Text {
        /// How long the text is.
        bytes: usize,
        /// What the `tokenizers` library said.
        reason: tokenizers::Error,
    },
}

impl TokenizerError {
    pub(super) fn content(path: &Path, reason: impl Into<String>) -> Self {
        Self::Content { path: path.to_owned(), reason: reason.into() }
    }
}

/// The bytes of a file; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, TokenizerError> {
    match whole::read(path, MAX_FILE) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(reason) if reason.kind() == ErrorKind::NotFound => Ok(None),
        Err(reason) => Err(TokenizerError::Read { path: path.to_owned(), reason }),
    }
}

/// A JSON file; `None` if there is none.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, TokenizerError> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| TokenizerError::content(path, error.to_string()))
}
