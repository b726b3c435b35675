//! The weight files of a model.

use std::fs;
use std::path::{Path, PathBuf};

use crate::job::sharded;

/// Folders within folders that are looked into: a model's components are one deep, and links may lead round in circles.
const MAX_DEPTH: usize = 4;

/// The weight files at `path`, a folder or a file, and below, in ascending order.
pub fn files(path: &Path) -> Vec<PathBuf> {
    within(path, MAX_DEPTH, &|path| path.extension().is_some_and(|extension| extension == "safetensors"))
}

/// The indexes of weights in several files at `path` and below, in ascending order.
pub fn indexes(path: &Path) -> Vec<PathBuf> {
    within(path, MAX_DEPTH, &|path| path.file_name().and_then(|name| name.to_str()).is_some_and(sharded::is_index))
}

fn within(path: &Path, depth: usize, wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut files = match fs::read_dir(path) {
        Ok(_) if depth == 0 => Vec::new(),
        Ok(entries) => entries.flatten().flat_map(|entry| within(&entry.path(), depth - 1, wanted)).collect(),
        Err(_) if wanted(path) => vec![path.to_owned()],
        Err(_) => Vec::new(),
    };
    files.sort();
    files
}

/// Bytes of all weight files at `path` and below.
pub fn bytes(path: &Path) -> u64 {
    files(path).iter().filter_map(|file| fs::metadata(file).ok()).map(|file| file.len()).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_are_found_and_circles_are_not_gone_round() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("unet/parts")).unwrap();
        let names = ["a.safetensors", "unet/b.safetensors", "unet/parts/c.safetensors"];
        for name in names {
            fs::write(at(name), [0; 7]).unwrap();
        }
        fs::write(at("unet/config.json"), "{}").unwrap();
        fs::write(at("unet/b.safetensors.index.json"), "{}").unwrap();
        assert_eq!(files(folder.path()), names.map(at));
        assert_eq!(indexes(folder.path()), [at("unet/b.safetensors.index.json")]);
        assert_eq!((bytes(folder.path()), bytes(&at("a.safetensors"))), (21, 7));
        for link in ["x", "y", "z"] {
            std::os::unix::fs::symlink(folder.path(), at("unet").join(link)).unwrap();
        }
        assert!(files(folder.path()).len() < 100);
    }
}
