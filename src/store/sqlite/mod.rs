//! Jobs in one `SQLite` file: the store of one machine.
//!
//! One thread writes, and another syncs what was written to the disk, which is then answered: an answer is as durable as the disk, and a busy
//! store pays for one sync what an idle one pays for one job. Only takes are answered without a sync, which a crash of the machine may undo.
//! Other threads read, for whom the write-ahead log keeps the last commit; what was read lately is read from memory.

mod backup;
mod clock;
mod db_thread;
mod keys;
mod lists;
mod open_file;
mod payloads;
mod request;
mod reserve;
mod schema;
mod status_cache;
mod tables;
mod vacuum;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::time::Instant;
use tracing::warn;

use crate::date::UnixTime;
use crate::disk::private;
use crate::queue::{JobState, Record, Rules, Submission, Transition};

use super::events::{EventSender, StoreEvent, Subscription};
use super::page::{JobPage, PageQuery};
use super::{
    ClaimRequest, Counts, JobEvent, JobWithPayloads, KeyRecord, LoadedPayloads, PayloadKind, PayloadSelection, Store,
    StoreError, TakenChunks, TakenJobs,
};
pub use backup::BackupSummary;
use db_thread::DbThread;
use open_file::OpenFile;
use reserve::DiskReserve;
use status_cache::StatusCache;
use tables::Tables;

/// Threads that read.
const READERS: usize = 2;

/// What comes with the end of a job; before it there is none of it but the last word on its progress, which goes with it.
const END_PAYLOADS: [PayloadKind; 3] = [PayloadKind::Output, PayloadKind::Timings, PayloadKind::Warnings];

/// Jobs in a file.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    rules: Rules,
    reserve: Arc<DiskReserve>,
    file: Arc<OpenFile>,
    writer: DbThread,
    readers: [DbThread; READERS],
    next: AtomicUsize,
    cache: Arc<StatusCache>,
    sender: Arc<EventSender>,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::NoSpace(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl SqliteStore {
    /// Opens the file, or makes it. Blocks. New jobs leave `reserve` bytes of its disk to those that are there.
    ///
    /// # Errors
    /// It cannot be opened, is no store, or one of a newer latentd.
    pub fn open(path: &Path, rules: Rules, reserve: Option<u64>) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        withhold(path).map_err(|cause| StoreError::Failed(cause.to_string()))?;
        let open = || -> Result<Connection, StoreError> {
            let db = Connection::open_with_flags(path, flags)?;
            schema::prepare(&db)?;
            Ok(db)
        };
        let (db, cache) = (open()?, Arc::new(StatusCache::new()));
        let file = OpenFile::at(path).map_err(|cause| StoreError::Failed(format!("{}: {cause}", path.display())))?;
        let log = schema::writes(&db)?;
        let writer = DbThread::writer(db, cache.clone(), move || log.sync_data())?;
        let readers = [DbThread::reader("store-reader-0", open()?)?, DbThread::reader("store-reader-1", open()?)?];
        let (sender, reserve) = (Arc::new(EventSender::new()), Arc::new(DiskReserve::new(path, reserve)));
        let (path, file, next) = (path.to_owned(), Arc::new(file), AtomicUsize::new(0));
        Ok(Self { path, rules, reserve, file, writer, readers, next, cache, sender })
    }

    /// Writes, and publishes what happened once it is on disk.
    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tables<'_>) -> Result<(T, Vec<StoreEvent>), StoreError> + Send + 'static,
    ) -> impl Future<Output = Result<T, StoreError>> + Send {
        let (rules, cache) = (self.rules.clone(), self.cache.clone());
        let done = self.writer.call(move |db| work(&Tables { db, rules: &rules, cache: &cache }));
        async move { self.written(done.await) }
    }

    fn written<T>(&self, done: Result<(T, Vec<StoreEvent>), StoreError>) -> Result<T, StoreError> {
        match done {
            Ok((done, events)) => {
                self.sender.publish(events);
                Ok(done)
            }
            Err(error) => Err(self.reserve.hear(error, Instant::now())),
        }
    }

    /// Reads on the thread of a reader.
    fn read_with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tables<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> impl Future<Output = Result<T, StoreError>> + Send {
        let (rules, cache) = (self.rules.clone(), self.cache.clone());
        let reader = &self.readers[self.next.fetch_add(1, Ordering::Relaxed) % READERS];
        reader.call(move |db| work(&Tables { db, rules: &rules, cache: &cache }))
    }

    /// [`Store::find`] of a job that the cache does not know, which gave the number `at` for it.
    async fn find_in_file(
        &self,
        endpoint: &str,
        id: &str,
        wanted: impl PayloadSelection,
        most: usize,
        at: u64,
    ) -> Result<Option<JobWithPayloads>, StoreError> {
        let (of, name) = (endpoint.to_owned(), id.to_owned());
        let read = self.read_with(move |jobs| jobs.find(&of, &name, wanted, most)).await?;
        let (read, large) = match read {
            Some((record, Ok(parts))) => (Some((Arc::new(record), parts)), None),
            Some((record, Err(bytes))) => (Some((Arc::new(record), Vec::new())), Some(bytes)),
            None => (None, None),
        };
        // Of what is large the record alone.
        self.cache.insert(endpoint, id, at, read.as_ref()).await;
        Ok(read.map(|(record, parts)| {
            let parts = parts.into_iter().map(|(_, body)| body).collect();
            (record, large.map_or(LoadedPayloads::Read(parts), LoadedPayloads::Large))
        }))
    }

    /// Writes a copy of the store in the file `from` to the new file `to`, as it is when that begins: what was answered by then is in it.
    /// Whoever has the store open goes on. Blocks.
    ///
    /// # Errors
    /// There is no store, or one of a newer latentd; `to` is there already, or cannot be written.
    pub fn backup(from: &Path, to: &Path) -> Result<BackupSummary, StoreError> {
        backup::copy(from, to)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes the file if it is not there, for its owner alone; so `SQLite` makes those beside it. What others could read until now is taken from
/// them.
fn withhold(path: &Path) -> io::Result<()> {
    private::begin(path)?;
    // Those beside it are beside the file itself.
    let file = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    for ending in ["", "-wal", "-shm"] {
        let mut name = file.as_os_str().to_owned();
        name.push(ending);
        match private::withdraw(Path::new(&name)) {
            Ok(true) => warn!("others could read {}: it is its owner's alone now", name.display()),
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                warn!("others may read {}, and that cannot be changed: {cause}", name.display());
            }
            Ok(false) | Err(_) => {}
        }
    }
    Ok(())
}

impl Store for SqliteStore {
    async fn submit(&self, endpoint: &str, job: Submission) -> Result<(), StoreError> {
        let (endpoint, now) = (endpoint.to_owned(), Instant::now());
        let (reserve, sender) = (self.reserve.clone(), self.sender.clone());
        let file = self.file.clone();
        let written = self.write(move |jobs| {
            // Here, where it may block.
            file.check()?;
            reserve.check(jobs.db, now)?;
            jobs.insert(&endpoint, &job)?;
            // Who takes it asks the same thread. So it is on its way before its client has an answer, and often written with it.
            sender.publish([StoreEvent::JobQueued(endpoint)]);
            Ok(((), Vec::new()))
        });
        written.await?;
        self.reserve.taken();
        Ok(())
    }

    async fn read(&self, endpoint: &str, id: &str) -> Result<Option<Record>, StoreError> {
        Ok(self.find(endpoint, id, |_| Vec::new(), 0).await?.map(|(record, _)| Arc::unwrap_or_clone(record)))
    }

    async fn find(
        &self,
        endpoint: &str,
        id: &str,
        wanted: impl PayloadSelection,
        most: usize,
    ) -> Result<Option<JobWithPayloads>, StoreError> {
        match self.cache.get(endpoint, id, &wanted) {
            Ok((record, parts)) => Ok(Some((record, LoadedPayloads::of(parts, most)))),
            // Boxed: what is asked often is known.
            Err(at) => Box::pin(self.find_in_file(endpoint, id, wanted, most, at)).await,
        }
    }

    async fn change(
        &self,
        endpoint: &str,
        id: &str,
        event: impl JobEvent,
        parts: Vec<(PayloadKind, Bytes)>,
        chunk: Option<Bytes>,
    ) -> Result<Option<(Record, Transition)>, StoreError> {
        let (endpoint, id) = (endpoint.to_owned(), id.to_owned());
        self.write(move |jobs| {
            let Some((record, transition, events)) = jobs.change(&endpoint, &id, event)? else {
                return Ok((None, Vec::new()));
            };
            if transition != Transition::Unchanged && !record.is_disposable() {
                jobs.keep(&endpoint, &id, &parts, chunk.as_ref())?;
                if events.iter().any(|event| matches!(event, StoreEvent::JobEnded(..))) {
                    let body = |part| parts.iter().rfind(|(given, _)| *given == part).map(|(_, body)| body.clone());
                    jobs.cache.insert_pending(
                        &endpoint,
                        (Arc::new(record.clone()), END_PAYLOADS.map(|part| (part, body(part))).into()),
                    );
                }
            }
            Ok((Some((record, transition)), events))
        })
        .await
    }

    /// It may be lost in a crash of the machine: then the job waits again, and the result of who has it is as good as any.
    async fn take(&self, endpoint: &str, request: ClaimRequest) -> Result<TakenJobs, StoreError> {
        let (endpoint, rules, cache) = (endpoint.to_owned(), self.rules.clone(), self.cache.clone());
        let work = move |db: &Connection| Tables { db, rules: &rules, cache: &cache }.take(&endpoint, &request);
        self.written(self.writer.call_unsynced(work).await)
    }

    async fn held_by(&self, endpoint: &str, worker: &str) -> Result<Vec<String>, StoreError> {
        let (endpoint, worker) = (endpoint.to_owned(), worker.to_owned());
        self.read_with(move |jobs| jobs.held_by(&endpoint, &worker)).await
    }

    async fn ids_in_state(&self, endpoint: &str, state: JobState) -> Result<Vec<String>, StoreError> {
        let endpoint = endpoint.to_owned();
        self.read_with(move |jobs| jobs.line(&endpoint, state)).await
    }

    async fn page(&self, endpoint: &str, query: PageQuery) -> Result<JobPage, StoreError> {
        let endpoint = endpoint.to_owned();
        self.read_with(move |jobs| jobs.page(&endpoint, &query)).await
    }

    async fn next_submitted(&self, endpoint: &str) -> Result<Option<UnixTime>, StoreError> {
        let endpoint = endpoint.to_owned();
        self.read_with(move |jobs| jobs.next_submitted(&endpoint)).await
    }

    async fn busy_workers(&self, endpoint: &str, workers: Vec<String>) -> Result<BTreeSet<String>, StoreError> {
        let endpoint = endpoint.to_owned();
        self.read_with(move |jobs| jobs.busy_workers(&endpoint, workers)).await
    }

    async fn due(&self, now: UnixTime, most: usize) -> Result<Vec<(String, String)>, StoreError> {
        self.read_with(move |jobs| jobs.due(now, most)).await
    }

    #[expect(clippy::redundant_closure_for_method_calls, reason = "the method by its name is one of a single lifetime")]
    async fn next_due(&self) -> Result<Option<UnixTime>, StoreError> {
        self.read_with(|jobs| jobs.next_due()).await
    }

    async fn take_chunks(&self, endpoint: &str, id: &str, most: usize) -> Result<TakenChunks, StoreError> {
        let (endpoint, id) = (endpoint.to_owned(), id.to_owned());
        self.write(move |jobs| Ok((jobs.take_chunks(&endpoint, &id, most)?, Vec::new()))).await
    }

    async fn take_stops(&self, endpoint: &str, worker: &str) -> Result<Vec<String>, StoreError> {
        let (endpoint, worker) = (endpoint.to_owned(), worker.to_owned());
        self.write(move |jobs| Ok((jobs.take_stops(&endpoint, &worker)?, Vec::new()))).await
    }

    async fn counts(&self, endpoint: &str) -> Result<Counts, StoreError> {
        let endpoint = endpoint.to_owned();
        self.read_with(move |jobs| jobs.counts(&endpoint)).await
    }

    async fn reclaim_space(&self) -> Result<(), StoreError> {
        let (rules, cache) = (self.rules.clone(), self.cache.clone());
        let file = self.file.clone();
        let work = move |db: &Connection| {
            // Told, and heard by who submits or asks whether it is ready; nothing else ends with it.
            let _ = file.check();
            Ok((Tables { db, rules: &rules, cache: &cache }.shrink()?, Vec::new()))
        };
        self.written(self.writer.call_unsynced(work).await)
    }

    async fn sync_clock(&self, on: Option<UnixTime>, wall: UnixTime) -> Result<UnixTime, StoreError> {
        let (rules, cache) = (self.rules.clone(), self.cache.clone());
        let work = move |db: &Connection| {
            let jobs = Tables { db, rules: &rules, cache: &cache };
            Ok((jobs.sync_clock(on, wall)?, Vec::new()))
        };
        match self.written(self.writer.call_unsynced(work).await) {
            // It is kept as soon as there is room. A queue that is full can be served all the same: what is in it is to be read.
            Err(StoreError::NoSpace(_)) => self.read_with(move |jobs| Ok(jobs.clock(on, wall)?.1.on)).await,
            done => done,
        }
    }

    async fn ready(&self) -> Result<(), StoreError> {
        let file = self.file.clone();
        self.read_with(move |tables| {
            file.check()?;
            tables.next_due().map(drop)
        })
        .await
    }

    async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        self.read_with(|jobs| {
            let keys = jobs.keys()?;
            Ok(keys)
        })
        .await
    }

    async fn add_key(&self, key: KeyRecord) -> Result<(), StoreError> {
        self.write(move |jobs| Ok((jobs.add_key(&key)?, Vec::new()))).await
    }

    async fn remove_key(&self, name: &str) -> Result<bool, StoreError> {
        let name = name.to_owned();
        self.write(move |jobs| Ok((jobs.remove_key(&name)?, Vec::new()))).await
    }

    fn subscribe(&self) -> Subscription {
        self.sender.subscribe()
    }
}
