//! Entries on disk: what must reach somebody is written down before it is first sent, and removed when it has arrived.
//!
//! A spool is a folder. Each process has a numbered folder in it to itself, by a lock that ends with the process, and takes
//! over what lies in those that no process has. So several workers share `spool.dir`, each with its own `spool.max_bytes`, and
//! what a worker left is sent by the next that starts, whichever it is. Within there is a folder a kind, a [`SpoolKind`]. What no process comes
//! for is removed after 7 days.
//!
//! Delivery is at least once: who dies between arrival and removal sends again. An entry holds a body and a header, which
//! says where it goes; no key to a queue or bucket is ever part of either.

mod capacity;
mod entry;
mod entry_file;
mod error;
mod process_dir;
mod shared;
mod sweep;

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tracing::warn;

pub use entry::{EntryHeader, SpoolEntry};
pub use error::SpoolError;

use crate::blocking::blocking;
use crate::clock::UnixTime;
use crate::disk::private::folder as make;
use capacity::Capacity;
use entry::{Storage, quarantine, remove};
use entry_file::{DRAFT, ENTRY, EntryHead, sync_dir};
use process_dir::{ProcessDir, files};
use shared::Shared;

/// This process's folder, and how full it is. Ends with its last [`SpoolKind`] and [`SpoolEntry`].
#[derive(Debug, Clone)]
pub struct Spool(Arc<Shared>);

impl Spool {
    /// Takes a folder under `root` that holds `max_bytes` before [`Spool::has_room`] is false. Blocks.
    ///
    /// # Errors
    /// The folder cannot be made or locked, or serves as many processes as it can.
    pub fn open(root: &Path, max_bytes: u64) -> Result<Self, SpoolError> {
        Ok(Self::with(Some(ProcessDir::take(root)?), None, max_bytes))
    }

    /// The same for the queue called `spool_key`, in a folder of its own among those of others in `all`.
    ///
    /// # Errors
    /// As for [`Spool::open`].
    pub fn of_queue(all: &Path, spool_key: &str, max_bytes: u64) -> Result<Self, SpoolError> {
        Ok(Self::with(Some(ProcessDir::take(&all.join(spool_key))?), Some(all.to_owned()), max_bytes))
    }

    /// Where no folder can be had: entries are sent as from one, and end with the process.
    pub fn in_memory(max_bytes: u64) -> Self {
        Self::with(None, None, max_bytes)
    }

    fn with(dir: Option<ProcessDir>, all: Option<PathBuf>, max_bytes: u64) -> Self {
        let (capacity, open, refused) = (Capacity::new(max_bytes), Mutex::default(), AtomicBool::new(false));
        Self(Arc::new(Shared { dir, capacity, all, open, refused }))
    }

    /// Opens the kind called `name`, and returns it with what an earlier process left in it, the most urgent first. What is past its
    /// deadline is dropped, what cannot be read set aside, and without a folder entries are kept in memory; all of it is logged. Blocks.
    /// To be opened once: twice would hand out the same entries twice.
    pub fn open_kind<H: EntryHeader>(&self, name: &str, now: UnixTime) -> (SpoolKind<H>, Vec<SpoolEntry<H>>) {
        let folder = self.0.dir.as_ref().map(|dir| dir.folder.join(name));
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner).extend(folder.clone());
        let kind = SpoolKind { shared: Arc::clone(&self.0), folder, headers: PhantomData };
        let entries = kind.folder.as_deref().map_or(Ok(Vec::new()), entries);
        let entries = entries.unwrap_or_else(|cause| {
            // What lies there is for the next process; what comes is written as soon as the disk takes it.
            self.0.say(Err(&cause));
            Vec::new()
        });
        (kind, entries.into_iter().filter_map(|path| self.load_entry(path, now)).collect())
    }

    /// Whether there is room for what new work would leave. What is already worked on is kept even if there is none.
    pub fn has_room(&self) -> bool {
        self.0.capacity.has_room()
    }

    /// Waits until [`Spool::has_room`].
    pub async fn room(&self) {
        self.0.capacity.room().await;
    }

    fn load_entry<H: EntryHeader>(&self, path: PathBuf, now: UnixTime) -> Option<SpoolEntry<H>> {
        let sized = |(head, _)| Ok((head, fs::metadata(&path)?.len()));
        let (head, size) = match EntryHead::<H>::read(&path).and_then(sized) {
            Ok(read) => read,
            Err(damage) => {
                quarantine(&path, &damage, None);
                return None;
            }
        };
        if UnixTime::from_millis(head.deadline) <= now {
            warn!(id = head.header.job(), "what an earlier process left is no longer waited for; it is dropped");
            remove(&path, head.header.job());
            return None;
        }
        Some(SpoolEntry::new(Arc::clone(&self.0), head, Storage::Disk { path, size }))
    }
}

/// The whole entries in the folder of a kind, which is made if it is not there; drafts are removed.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    make(folder)?;
    for draft in files(folder, DRAFT)? {
        fs::remove_file(&draft)?;
    }
    files(folder, ENTRY)
}

/// The entries of one kind.
#[derive(Debug)]
pub struct SpoolKind<H> {
    shared: Arc<Shared>,
    folder: Option<PathBuf>,
    headers: PhantomData<fn() -> H>,
}

impl<H: EntryHeader> SpoolKind<H> {
    /// Keeps an entry; once this returns, it survives the process. It never fails: what the disk does not take is kept in memory,
    /// and counts as much there.
    pub async fn keep(&self, header: H, deadline: UnixTime, body: Bytes) -> SpoolEntry<H> {
        let shared = Arc::clone(&self.shared);
        let head = EntryHead::new(header, deadline.as_millis());
        let Some(folder) = self.folder.clone() else { return SpoolEntry::new(shared, head, Storage::Memory(body)) };
        blocking(move || {
            let path = folder.join(name(deadline)).with_extension(ENTRY);
            let written = make(&folder).and_then(|()| head.write(&path, &body));
            let written = written.and_then(|size| sync_dir(&path).map(|()| size));
            shared.say(written.as_ref().map(|_| ()));
            let storage = if let Ok(size) = written {
                Storage::Disk { path, size }
            } else {
                // It may have got its name.
                let _ = fs::remove_file(&path);
                Storage::Memory(body)
            };
            SpoolEntry::new(shared, head, storage)
        })
        .await
    }
}

/// A name for an entry that none had before; the most urgent come first.
fn name(deadline: UnixTime) -> String {
    format!("{:016x}-{:016x}", deadline.as_millis(), RandomState::new().hash_one(0))
}

#[cfg(test)]
mod tests;
