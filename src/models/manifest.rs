//! What a model is, where it came from and what its files hash to: `model.json` in its folder, and the same for models that are known
//! beforehand.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::place::RelativePath;
use crate::disk::whole;
use crate::job::Family;

/// The file in a model's folder that says what it is.
pub const MANIFEST: &str = "model.json";

/// Bytes of it: a model of many thousand files has less.
const MANIFEST_BYTES: u64 = 4 << 20;

/// The manifests of `models/manifests/`, by their file names without the ending.
const KNOWN: [(&str, &str); 9] = [
    ("sd-1.5", include_str!("../../models/manifests/sd-1.5.json")),
    ("sd-1.4", include_str!("../../models/manifests/sd-1.4.json")),
    ("dreamshaper-8", include_str!("../../models/manifests/dreamshaper-8.json")),
    ("openjourney", include_str!("../../models/manifests/openjourney.json")),
    ("realistic-vision-5.1", include_str!("../../models/manifests/realistic-vision-5.1.json")),
    ("sdxl", include_str!("../../models/manifests/sdxl.json")),
    ("sdxl-turbo", include_str!("../../models/manifests/sdxl-turbo.json")),
    ("sdxl-refiner", include_str!("../../models/manifests/sdxl-refiner.json")),
    ("sdxl-vae-fp16-fix", include_str!("../../models/manifests/sdxl-vae-fp16-fix.json")),
];

/// What is told of a model. Everything but the family of one that is there may be unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// What it is to people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The architecture, such as `sd1`; empty before the files have come that tell it.
    pub family: String,
    /// What its jobs may say, if that is not what those of its family may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<String>,
    /// What its publisher allows, as a name or an SPDX expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Where the licence can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence_url: Option<String>,
    /// The repository on a hub, `owner/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The branch, tag or commit; of a model that was pulled, the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Which weights of the repository are pulled where none are asked for, as in `fp16`; of known models alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Where the autoencoder came from, if it is not the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vae: Option<PartSource>,
    /// Where the file came from, if from no repository; without what could be a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// When it was pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pulled: Option<String>,
    /// Its files, as far as they are known. Of those of a known model, only what was published.
    #[serde(default)]
    pub files: Vec<ListedFile>,
    /// What a reader should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Where a part of a model came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartSource {
    /// The repository, `owner/name`.
    pub repository: String,
    /// The commit.
    pub revision: String,
    /// What its publisher allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
}

/// A file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedFile {
    /// Where it lies in the model's folder.
    pub path: RelativePath,
    /// Its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Its hash.
    pub sha256: Digest,
}

impl Manifest {
    /// The family of an autoencoder of SDXL, which is no model.
    pub(super) const VAE: &str = "sdxl-vae";

    /// The model that is known by `name`.
    pub fn known(name: &str) -> Option<Self> {
        let (_, text) = KNOWN.into_iter().find(|(known, _)| *known == name)?;
        serde_json::from_str(text).ok()
    }

    /// The names of the known models that load.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let loads = |name: &str| Self::known(name).is_some_and(|known| Family::from_name(&known.family).is_some());
        KNOWN.into_iter().map(|(name, _)| name).filter(move |name| loads(name))
    }

    /// What `model.json` in `folder` says; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read, or is not what it should be.
    pub fn read(folder: &Path) -> io::Result<Option<Self>> {
        match whole::read(&folder.join(MANIFEST), MANIFEST_BYTES) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(cause) => Err(cause),
        }
    }

    /// Writes `model.json` in `folder` and sees to it that it is on the disk.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let mut file = File::create(folder.join(MANIFEST))?;
        writeln!(file, "{}", serde_json::to_string_pretty(self)?)?;
        file.sync_all()
    }

    /// The hash that is known of a file.
    pub(super) fn hash(&self, path: &RelativePath) -> Option<Digest> {
        self.files.iter().find(|file| file.path == *path).map(|file| file.sha256)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    #[test]
    fn every_manifest_is_in_the_program_and_says_what_is_needed() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/manifests");
        let mut files: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap().trim_end_matches(".json").to_owned())
            .collect();
        files.sort();
        let mut known = KNOWN.map(|(name, _)| name);
        known.sort_unstable();
        assert_eq!(files, known);
        for (name, text) in KNOWN {
            let manifest: Manifest = serde_json::from_str(text).unwrap();
            let written: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_value(&manifest).unwrap(), written, "{name}: nothing is misspelt");
            let family = match name {
                "sdxl-vae-fp16-fix" => None,
                "sdxl-refiner" => Some(Family::SdxlRefiner),
                _ if name.starts_with("sdxl") => Some(Family::Sdxl),
                _ => Some(Family::Sd1),
            };
            assert_eq!(Family::from_name(&manifest.family), family, "{name}");
            assert_eq!(Manifest::names().any(|known| known == name), family.is_some(), "{name}");
            assert!(manifest.repository.is_some() && manifest.revision.is_some(), "{name}");
            assert!(manifest.licence.is_some() && manifest.licence_url.is_some(), "{name}");
            assert_eq!(Manifest::known(name), Some(manifest));
        }
        assert_eq!(Manifest::known("sd-0.9"), None);
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::read(folder.path()).unwrap(), None);
        let written = Manifest::known("sd-1.5").unwrap();
        written.write(folder.path()).unwrap();
        assert_eq!(Manifest::read(folder.path()).unwrap(), Some(written));
        fs::write(folder.path().join(MANIFEST), "{").unwrap();
        assert!(Manifest::read(folder.path()).is_err());
    }
}
