//! The weight files of a model.

use std::fs;
use std::path::{Path, PathBuf};

/// The weight files at `path`, a folder or a file, and below, in ascending order.
pub fn files(path: &Path) -> Vec<PathBuf> {
    let mut files = match fs::read_dir(path) {
        Ok(entries) => entries.flatten().flat_map(|entry| files(&entry.path())).collect(),
        Err(_) if path.extension().is_some_and(|extension| extension == "safetensors") => vec![path.to_owned()],
        Err(_) => Vec::new(),
    };
    files.sort();
    files
}

/// Bytes of all weight files at `path` and below.
pub fn bytes(path: &Path) -> u64 {
    files(path).iter().filter_map(|file| fs::metadata(file).ok()).map(|file| file.len()).sum()
}
