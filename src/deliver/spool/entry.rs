//! An entry that is kept until it has arrived.

use std::io;
use std::mem::replace;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, fs};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::warn;

use super::entry_file::{DAMAGED, Damage, EntryHead, sync_dir};
use super::error::SpoolError;
use super::shared::Shared;
use crate::blocking::blocking;
use crate::clock::UnixTime;

/// What stands on an entry: where it goes, and nothing secret that a restart could not do without.
pub trait EntryHeader: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The id of the job it is about, for the logs.
    fn job(&self) -> &str;
}

/// An entry on its way. Dropped before [`SpoolEntry::done`], it stays on disk for the next process, and counts until then.
pub struct SpoolEntry<H> {
    shared: Arc<Shared>,
    head: EntryHead<H>,
    pub(super) storage: Storage,
}

/// Where the entry is.
pub(super) enum Storage {
    Disk {
        path: PathBuf,
        size: u64,
    },
    Memory(Bytes),
    /// It is in memory, and the one that it was exchanged for still on disk, as the disk took none.
    Both {
        path: PathBuf,
        size: u64,
        body: Bytes,
    },
    /// It has arrived.
    Gone,
}

impl Storage {
    /// What it counts.
    fn size(&self) -> u64 {
        match self {
            Self::Disk { size, .. } => *size,
            Self::Memory(body) => body.len() as u64,
            Self::Both { size, body, .. } => size + body.len() as u64,
            Self::Gone => 0,
        }
    }
}

impl<H> SpoolEntry<H> {
    pub(super) fn new(shared: Arc<Shared>, head: EntryHead<H>, storage: Storage) -> Self {
        shared.capacity.add(storage.size());
        Self { shared, head, storage }
    }
}

impl<H: EntryHeader> SpoolEntry<H> {
    /// What stands on it.
    pub fn header(&self) -> &H {
        &self.head.header
    }

    /// Whether it would outlive this process.
    pub fn lasts(&self) -> bool {
        matches!(self.storage, Storage::Disk { .. })
    }

    /// When it is no longer waited for.
    pub fn deadline(&self) -> UnixTime {
        UnixTime::from_millis(self.head.deadline)
    }

    /// Its body, read from disk and checked, so that what waits for its next try takes no memory.
    ///
    /// # Errors
    /// [`SpoolError::Damaged`]: there is nothing left to send.
    pub async fn body(&self) -> Result<Bytes, SpoolError> {
        let path = match &self.storage {
            Storage::Disk { path, .. } => path.clone(),
            Storage::Memory(body) | Storage::Both { body, .. } => return Ok(body.clone()),
            Storage::Gone => return Ok(Bytes::new()),
        };
        let id = self.header().job().to_owned();
        blocking(move || match EntryHead::<H>::read(&path) {
            Ok((_, body)) => Ok(body),
            Err(damage) => {
                quarantine(&path, &damage, Some(&id));
                Err(SpoolError::Damaged { file: path, why: damage.to_string() })
            }
        })
        .await
    }

    /// Puts another entry in its place, at once for whoever takes over: one of the two is there whatever happens. What the disk does not
    /// take is kept in memory, and the entry before stays on disk.
    pub async fn exchange(self, header: H, body: Bytes) -> Self {
        blocking(move || {
            let mut entry = self;
            entry.head.header = header;
            let before = entry.storage.size();
            entry.storage = match replace(&mut entry.storage, Storage::Gone) {
                Storage::Disk { path, size } | Storage::Both { path, size, .. } => match entry.head.write(&path, &body)
                {
                    Ok(size) => {
                        // Whichever of the two has the name after a crash.
                        entry.shared.say(sync_dir(&path).as_ref().copied());
                        Storage::Disk { path, size }
                    }
                    Err(cause) => {
                        entry.shared.say(Err(&cause));
                        Storage::Both { path, size, body }
                    }
                },
                Storage::Memory(_) | Storage::Gone => Storage::Memory(body),
            };
            entry.shared.capacity.add(entry.storage.size());
            entry.shared.capacity.remove(before);
            entry
        })
        .await
    }

    /// It has arrived, or will never be taken: removes it.
    pub async fn done(self) {
        blocking(move || {
            let mut entry = self;
            let storage = replace(&mut entry.storage, Storage::Gone);
            if let Storage::Disk { path, .. } | Storage::Both { path, .. } = &storage {
                remove(path, entry.header().job());
            }
            entry.shared.capacity.remove(storage.size());
        })
        .await;
    }
}

impl<H> Drop for SpoolEntry<H> {
    fn drop(&mut self) {
        // What lies on disk still lies there; what was in memory ends here.
        if let Storage::Memory(body) | Storage::Both { body, .. } = &self.storage {
            self.shared.capacity.remove(body.len() as u64);
        }
    }
}

/// Names the job and where the entry lies; bodies are pictures, and headers may hold what a stranger keeps secret.
impl<H: EntryHeader> fmt::Debug for SpoolEntry<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match &self.storage {
            Storage::Disk { path, .. } | Storage::Both { path, .. } => Some(path),
            Storage::Memory(_) | Storage::Gone => None,
        };
        f.debug_struct("SpoolEntry").field("job", &self.header().job()).field("path", &path).finish_non_exhaustive()
    }
}

/// Renames what cannot be read, so that it is neither met again nor lost to who wants to look into it. `id` is the job, if it is known.
pub(super) fn quarantine(path: &Path, damage: &Damage, id: Option<&str>) {
    let aside = path.with_extension(DAMAGED);
    match fs::rename(path, &aside) {
        Ok(()) => warn!(id, "{} is no entry: {damage}; it is set aside as {}", path.display(), aside.display()),
        Err(cause) => warn!(id, "{} is no entry: {damage}; and cannot be set aside: {cause}", path.display()),
    }
}

/// Removes the entry about a job.
pub(super) fn remove(path: &Path, id: &str) {
    match fs::remove_file(path) {
        Ok(()) => {}
        // Who cleared the folder by hand was told by us that it was full.
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        Err(cause) => warn!(id, "{} cannot be removed, and will be sent again: {cause}", path.display()),
    }
}
