//! A folder that one process has to itself.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use crate::disk::private::{self, folder as make};

use super::entry_file::ENTRY;
use super::error::SpoolError;

/// The file that a process locks.
pub(super) const LOCK: &str = "lock";

/// Processes that share a spool on one machine.
const MAX_PROCESSES: usize = 64;

/// One of the numbered folders of a spool, and the lock on it, which ends with the value and with the process.
#[derive(Debug)]
pub(super) struct ProcessDir {
    pub(super) folder: PathBuf,
    _lock: File,
}

impl ProcessDir {
    /// Takes the first folder under `root` that no process has, and what lies in others that no process has.
    pub(super) fn take(root: &Path) -> Result<Self, SpoolError> {
        let fail = |cause| SpoolError::Folder { folder: root.to_owned(), cause };
        make(root).map_err(fail)?;
        for number in 0..MAX_PROCESSES {
            if let Some(dir) = Self::take_if_free(root.join(number.to_string())).map_err(fail)? {
                // All below are taken.
                for other in number + 1..MAX_PROCESSES {
                    dir.take_over(&root.join(other.to_string()));
                }
                return Ok(dir);
            }
        }
        Err(SpoolError::Taken { folder: root.to_owned(), processes: MAX_PROCESSES })
    }

    pub(super) fn take_if_free(folder: PathBuf) -> io::Result<Option<Self>> {
        make(&folder)?;
        let lock = private::file(&folder.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { folder, _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(cause)) => Err(cause),
        }
    }

    /// Moves the entries of a folder that no process has into this one.
    fn take_over(&self, other: &Path) {
        if !other.is_dir() {
            return;
        }
        let moved = Self::take_if_free(other.to_owned()).and_then(|other| match other {
            Some(other) => folders(&other.folder)?.iter().map(|kind| self.take_over_kind(kind)).sum(),
            None => Ok(0),
        });
        match moved {
            Ok(0) => {}
            Ok(entries) => info!(entries, "took over what another worker left in {}", other.display()),
            Err(cause) => warn!("what another worker left in {} is left there: {cause}", other.display()),
        }
    }

    fn take_over_kind(&self, kind: &Path) -> io::Result<usize> {
        let own = self.folder.join(name(kind)?);
        make(&own)?;
        let mut entries = 0;
        for entry in files(kind, ENTRY)? {
            // Names are not used twice, and an entry is in one of the two places whatever happens.
            fs::rename(&entry, own.join(name(&entry)?))?;
            entries += 1;
        }
        Ok(entries)
    }
}

/// The last part of a path.
fn name(path: &Path) -> io::Result<&OsStr> {
    path.file_name().ok_or_else(|| io::Error::other(format!("{} has no name", path.display())))
}

/// The files in `folder` whose names end so, in the order of their names.
pub(super) fn files(folder: &Path, ending: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|found| found == ending) && entry.file_type()?.is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// The folders in `folder`.
pub(super) fn folders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    entries.filter(|path| path.as_ref().map_or(true, |path| path.is_dir())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn every_process_has_a_folder_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join("spool").join(name);
        let [a, b] = [(), ()].map(|()| ProcessDir::take(&at("")).unwrap());
        assert_eq!([&a.folder, &b.folder], [&at("0"), &at("1")]);
        drop(a);
        let again = ProcessDir::take(&at("")).unwrap();
        assert_eq!(again.folder, at("0"));
        assert_eq!(fs::metadata(at("0")).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_a_process_left_goes_to_the_next() {
        let root = tempfile::tempdir().unwrap();
        let dirs = [(), (), ()].map(|()| ProcessDir::take(root.path()).unwrap());
        for (dir, name) in dirs.iter().zip(["a.letter", "b.letter", "c.letter"]) {
            make(&dir.folder.join("results")).unwrap();
            fs::write(dir.folder.join("results").join(name), name).unwrap();
        }
        let [a, b, c] = dirs;
        drop((a, c));
        let heir = ProcessDir::take(root.path()).unwrap();
        let names = |dir: &ProcessDir| {
            let found = files(&dir.folder.join("results"), ENTRY).unwrap();
            found.into_iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!((names(&heir), names(&b)), (vec!["a.letter".into(), "c.letter".into()], vec!["b.letter".into()]));
    }

    #[test]
    fn a_folder_that_cannot_be_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = ProcessDir::take(&file.path().join("spool")).unwrap_err().to_string();
        assert!(error.contains(file.path().to_str().unwrap()) && error.contains("spool.dir"), "{error}");
    }

    #[test]
    fn there_is_an_end_of_seats() {
        let root = tempfile::tempdir().unwrap();
        let dirs: Vec<ProcessDir> = (0..MAX_PROCESSES).map(|_| ProcessDir::take(root.path()).unwrap()).collect();
        let error = ProcessDir::take(root.path()).unwrap_err().to_string();
        assert!(error.contains("64 processes"), "{error}");
        drop(dirs);
    }
}
