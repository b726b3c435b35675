//! Which files a model's name stands for.

use std::fs;
use std::path::{Path, PathBuf};

use super::hub_cache;

/// A model that was found; whether it is a good one, its reader says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPath {
    /// What jobs and pictures call it: the folder's name, or the file's without its extension.
    pub name: String,
    /// A folder in diffusers layout or a `.safetensors` file, which may be the one model of a folder of its own.
    pub path: PathBuf,
}

impl ModelPath {
    /// Looks `wanted` up: a path if it has a separator, else a name under `models_dir`, else one in the working directory; a
    /// repository in one of `caches` if there is no such path.
    pub(super) fn find(wanted: &str, models_dir: &Path, caches: &[PathBuf]) -> Option<Self> {
        let named = [models_dir.join(wanted), models_dir.join(format!("{wanted}.safetensors"))];
        let paths = named.into_iter().filter(|_| !wanted.contains('/')).chain([wanted.into()]);
        paths.map(Self::at).find(Option::is_some).unwrap_or_else(|| {
            let (name, path) = hub_cache::find(wanted, caches)?;
            Some(Self { name, path })
        })
    }

    /// Names of what looks like a model in `models_dir`, in ascending order.
    pub(super) fn names(models_dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(models_dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let models = entries.filter(|path| !is_hidden(path) && looks_like_one(path));
        let mut names: Vec<String> = models.filter_map(Self::at).map(|model| model.name).collect();
        names.sort();
        names
    }

    fn at(path: PathBuf) -> Option<Self> {
        // The name of `.` is that of the folder.
        let full = path.canonicalize().ok()?;
        let name = if full.is_dir() { full.file_name() } else { full.file_stem() }?.to_string_lossy().into_owned();
        let path = checkpoint(&path).unwrap_or(path);
        Some(Self { name, path })
    }
}

/// Such as a model that is being pulled.
fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn looks_like_one(path: &Path) -> bool {
    path.join("unet").is_dir() || is_safetensors(path) || checkpoint(path).is_some()
}

fn is_safetensors(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "safetensors")
}

/// The one checkpoint in a folder that is no diffusers folder: pulled models have a folder each, for what is known of them.
fn checkpoint(folder: &Path) -> Option<PathBuf> {
    if folder.join("model_index.json").exists() || folder.join("unet").exists() {
        return None;
    }
    let mut files = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).filter(|path| is_safetensors(path));
    files.next().filter(|_| files.next().is_none())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_model_is_found_by_name_and_by_path() {
        let models_dir = tempfile::tempdir().unwrap();
        let folder = models_dir.path().join("tiny");
        fs::create_dir_all(folder.join("unet")).unwrap();
        let file = models_dir.path().join("one.safetensors");
        fs::write(&file, "").unwrap();
        fs::write(models_dir.path().join("README.md"), "").unwrap();
        fs::create_dir_all(models_dir.path().join(".pull-half/unet")).unwrap();
        let alone = models_dir.path().join("alone");
        fs::create_dir_all(&alone).unwrap();
        fs::write(alone.join("alone.safetensors"), "").unwrap();
        fs::write(alone.join("SHA256SUMS"), "").unwrap();
        let found = |wanted: &str| ModelPath::find(wanted, models_dir.path(), &[]);
        let model = |name: &str, path: &Path| Some(ModelPath { name: name.into(), path: path.into() });

        assert_eq!(found("tiny"), model("tiny", &folder));
        assert_eq!(found("one"), model("one", &file));
        assert_eq!(found("one.safetensors"), model("one", &file));
        assert_eq!(found(folder.to_str().unwrap()), model("tiny", &folder));
        let dotted = folder.join("unet/..");
        assert_eq!(found(dotted.to_str().unwrap()), model("tiny", &dotted));
        assert_eq!(found("none"), None);
        assert_eq!(found("alone"), model("alone", &alone.join("alone.safetensors")));
        assert_eq!(found("./tiny"), None, "a path is no name");
        assert_eq!(ModelPath::names(models_dir.path()), ["alone", "one", "tiny"]);
        fs::write(alone.join("two.safetensors"), "").unwrap();
        assert_eq!(found("alone"), model("alone", &alone), "nobody knows which of two");
        assert_eq!(ModelPath::names(Path::new("/nowhere")), [""; 0]);
    }
}
