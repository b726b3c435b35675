//! The folder in which a model comes together, and from which it goes to its place in one step.
//!
//! It lies beside that place, on the same disk, under a name that no model has. Its files have theirs only when all are whole, so that
//! nothing that is half there is ever taken for a model.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::digest::write_sums;
use super::error::PullError;
use super::manifest::{ListedFile, MANIFEST, Manifest};
use super::part::part;
use super::place::RelativePath;
use super::{Digest, SUMS};
use crate::disk;

/// What the folder's name begins with.
const STAGING_PREFIX: &str = ".pull-";

/// Whether a path in `models_dir` is one of these folders, and of which model.
pub fn is_staging(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.strip_prefix(STAGING_PREFIX)
}

/// The folder while files come in. No other process has it.
#[derive(Debug)]
pub(super) struct Staging {
    folder: PathBuf,
    place: PathBuf,
    /// The folder itself, locked: the lock goes where the folder goes, and ends with the process.
    _lock: File,
}

/// A whole model that is not in its place yet.
#[derive(Debug)]
pub struct Staged(Staging);

impl Staging {
    /// Takes the folder for the model `name`, with what an earlier process left in it.
    pub(super) fn begin(models_dir: &Path, name: &str) -> Result<Self, PullError> {
        let (folder, place) = (models_dir.join(format!("{STAGING_PREFIX}{name}")), models_dir.join(name));
        loop {
            fs::create_dir_all(&folder).map_err(PullError::disk(&folder))?;
            let lock = File::open(&folder).map_err(PullError::disk(&folder))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(PullError::Locked(folder)),
                Err(TryLockError::Error(cause)) => return Err(PullError::disk(folder)(cause)),
            }
            // Between the two lines above another process may have moved it to its place.
            if !is_same(&lock, &folder) {
                continue;
            }
            let single = models_dir.join(format!("{name}.safetensors"));
            if let Some(there) = [place.clone(), single].into_iter().find(|path| path.symlink_metadata().is_ok()) {
                // Empty if it was made above; what an earlier process left stays.
                let _ = fs::remove_dir(&folder);
                return Err(PullError::Exists(there));
            }
            return Ok(Self { folder, place, _lock: lock });
        }
    }

    /// Where a file goes.
    pub(super) fn file(&self, path: &RelativePath) -> PathBuf {
        path.within(&self.folder)
    }

    /// Whether the disk has room for files of so many bytes, as far as they are not there yet.
    pub(super) fn room(&self, files: impl Iterator<Item = (PathBuf, u64)>) -> Result<(), PullError> {
        let there = |path: &Path| [part(path), path.to_owned()].iter().find_map(|path| fs::metadata(path).ok());
        let left = |(path, bytes): (PathBuf, u64)| bytes.saturating_sub(there(&path).map_or(0, |file| file.len()));
        let needed = files.map(left).fold(0, u64::saturating_add);
        let free = disk::of(&self.folder).map_err(PullError::disk(&self.folder))?.free;
        if needed > free { Err(PullError::Space { folder: self.folder.clone(), needed, free }) } else { Ok(()) }
    }

    /// Gives all files their names, writes down what they are, and removes what is none of them.
    pub(super) fn complete(
        self,
        about: Manifest,
        files: Vec<(RelativePath, u64, Digest)>,
    ) -> Result<Staged, PullError> {
        for (path, ..) in &files {
            let path = self.file(path);
            fs::rename(part(&path), &path).map_err(PullError::disk(path))?;
        }
        let folder = &self.folder;
        write_sums(folder, files.iter().map(|(path, _, sha256)| (path, *sha256)))
            .map_err(PullError::disk(folder.join(SUMS)))?;
        let kept: HashSet<PathBuf> = files.iter().map(|(path, ..)| self.file(path)).collect();
        let listed = |(path, bytes, sha256)| ListedFile { path, bytes: Some(bytes), sha256 };
        let about = Manifest { files: files.into_iter().map(listed).collect(), ..about };
        about.write(folder).map_err(PullError::disk(folder.join(MANIFEST)))?;
        let kept = |path: &Path| kept.contains(path) || [SUMS, MANIFEST].iter().any(|name| path == folder.join(name));
        tidy(folder, &kept).map_err(PullError::disk(folder))?;
        Ok(Staged(self))
    }
}

impl Staged {
    /// Where it is now.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// Moves it to its place, and says where that is.
    ///
    /// # Errors
    /// The folder cannot get its name, or there is one of that name by now.
    pub fn settle(self) -> Result<PathBuf, PullError> {
        let Staging { folder, place, .. } = self.0;
        fs::rename(&folder, &place).map_err(|cause| match cause.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                PullError::Exists(place.clone())
            }
            _ => PullError::disk(&place)(cause),
        })?;
        if let Some(parent) = place.parent() {
            sync(parent).map_err(PullError::disk(parent))?;
        }
        Ok(place)
    }

    /// Removes it: it is no model.
    ///
    /// # Errors
    /// The folder cannot be removed.
    pub fn discard(self) -> Result<(), PullError> {
        fs::remove_dir_all(&self.0.folder).map_err(PullError::disk(&self.0.folder))
    }
}

fn is_same(file: &File, path: &Path) -> bool {
    let identity = |found: io::Result<fs::Metadata>| found.map(|found| (found.dev(), found.ino())).ok();
    identity(file.metadata()).is_some_and(|file| Some(file) == identity(fs::metadata(path)))
}

/// Removes what is not `kept` from `folder`, and folders that are empty then; the rest is on the disk afterwards.
fn tidy(folder: &Path, kept: &dyn Fn(&Path) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            tidy(&path, kept)?;
            if fs::read_dir(&path)?.next().is_none() {
                fs::remove_dir(&path)?;
            }
        } else if !kept(&path) {
            fs::remove_file(&path)?;
        }
    }
    sync(folder)
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn place(text: &str) -> RelativePath {
        RelativePath::parse(text).unwrap()
    }

    fn about() -> Manifest {
        Manifest { family: "sd1".into(), ..Manifest::default() }
    }

    #[test]
    fn a_model_appears_in_one_step_and_with_nothing_else() {
        let models = tempfile::tempdir().unwrap();
        let staging = Staging::begin(models.path(), "m").unwrap();
        let file = staging.file(&place("unet/w"));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(part(&file), "abc").unwrap();
        fs::write(file.with_extension("from"), "").unwrap();
        fs::create_dir_all(models.path().join(".pull-m/vae")).unwrap();
        fs::write(models.path().join(".pull-m/vae/old.part"), "").unwrap();
        let digest = Digest::of_file(&part(&file), |_| ()).unwrap();
        let staged = staging.complete(about(), vec![(place("unet/w"), 3, digest)]).unwrap();
        assert_eq!(is_staging(staged.folder()), Some("m"));
        assert!(!models.path().join("m").exists());
        let settled = staged.settle().unwrap();
        assert_eq!(settled, models.path().join("m"));
        let mut names: Vec<_> = fs::read_dir(&settled).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["SHA256SUMS", "model.json", "unet"]);
        assert_eq!(fs::read_dir(settled.join("unet")).unwrap().count(), 1);
        assert_eq!(fs::read_dir(models.path()).unwrap().count(), 1);
    }

    #[test]
    fn two_cannot_pull_one_model_and_none_is_replaced() {
        let models = tempfile::tempdir().unwrap();
        let first = Staging::begin(models.path(), "m").unwrap();
        assert!(matches!(Staging::begin(models.path(), "m"), Err(PullError::Locked(_))));
        assert!(Staging::begin(models.path(), "other").is_ok());
        drop(first);
        let again = Staging::begin(models.path(), "m").unwrap();
        again.complete(about(), Vec::new()).unwrap().settle().unwrap();
        assert!(matches!(Staging::begin(models.path(), "m"), Err(PullError::Exists(_))));
        assert!(!models.path().join(".pull-m").exists());
        fs::write(models.path().join("n.safetensors"), "").unwrap();
        assert!(matches!(Staging::begin(models.path(), "n"), Err(PullError::Exists(_))));
    }

    #[test]
    fn room_is_wanted_for_what_is_not_there() {
        let models = tempfile::tempdir().unwrap();
        let staging = Staging::begin(models.path(), "m").unwrap();
        let file = staging.file(&place("w"));
        fs::write(part(&file), "abc").unwrap();
        staging.room([(file.clone(), 3)].into_iter()).unwrap();
        let error = staging.room([(file.clone(), 3), (file, 1 << 60)].into_iter()).unwrap_err();
        assert!(matches!(error, PullError::Space { needed, .. } if needed == (1 << 60) - 3), "{error}");
    }
}
