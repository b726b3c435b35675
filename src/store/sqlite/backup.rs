//! A copy of the file while a gateway writes to it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf, absolute};

use rusqlite::{Connection, OpenFlags};

use crate::disk::private;

use super::super::StoreError;
use super::schema;

/// What a copy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupSummary {
    /// Jobs, those among them that clients no longer find.
    pub jobs: u64,
    /// Its size.
    pub bytes: u64,
}

/// Copies the store in `from` to the new file `to`. Readers hold up no writer, so a gateway goes on.
///
/// It is written under another name first, so that what has the name is whole. It is for its owner alone: it has pictures and hashes of keys.
pub(super) fn copy(from: &Path, to: &Path) -> Result<BackupSummary, StoreError> {
    let failed = |path: &Path, why: &str| StoreError::Failed(format!("{}: {why}", path.display()));
    let disk = |path: &Path, cause: io::Error| failed(path, &cause.to_string());
    let db = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|cause| failed(from, &cause.to_string()))?;
    schema::known(&db).map_err(|cause| failed(from, &cause.to_string()))?;
    // With a root before it no name is taken for a URI.
    let to = absolute(to).map_err(|cause| disk(to, cause))?;
    is_new(&to)?;
    let part = PathBuf::from(format!("{}.part", to.display()));
    let file = begin(&part).map_err(|cause| disk(&part, cause))?;
    let done = fill(&db, &part).map_err(|cause| failed(&part, &cause.to_string())).and_then(|jobs| {
        file.sync_all().map_err(|cause| disk(&part, cause))?;
        is_new(&to)?;
        fs::rename(&part, &to).map_err(|cause| disk(&to, cause))?;
        let folder = to.parent().unwrap_or(Path::new("/"));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|cause| disk(folder, cause))?;
        Ok(BackupSummary { jobs, bytes: file.metadata().map_err(|cause| disk(&to, cause))?.len() })
    });
    if done.is_err() {
        // What is in it is of no use; and it may be at its place already.
        let _ = fs::remove_file(&part);
    }
    done
}

fn is_new(to: &Path) -> Result<(), StoreError> {
    match fs::symlink_metadata(to) {
        Ok(_) => Err(StoreError::Failed(format!("{}: there is such a file, and none is overwritten", to.display()))),
        Err(_) => Ok(()),
    }
}

/// An empty file that is ours alone; what a copy that was broken off left in it is thrown away.
fn begin(part: &Path) -> io::Result<File> {
    let file = private::file(part)?;
    private::withdraw(part)?;
    match file.try_lock() {
        Ok(()) => file.set_len(0).map(|()| file),
        Err(TryLockError::WouldBlock) => Err(io::Error::other("another process is writing it")),
        Err(TryLockError::Error(cause)) => Err(cause),
    }
}

/// Writes what is committed by now, without the room that erased jobs have left. Returns how many jobs that are.
fn fill(db: &Connection, part: &Path) -> Result<u64, StoreError> {
    let name = part.to_str().ok_or_else(|| StoreError::Failed("its name is no UTF-8".into()))?;
    db.execute("VACUUM INTO ?1", [name])?;
    let copy = Connection::open_with_flags(part, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    let jobs: i64 = copy.query_row("SELECT count(*) FROM jobs", [], |row| row.get(0))?;
    Ok(jobs as u64)
}
