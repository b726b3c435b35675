//! Where an endpoint keeps its jobs.
//!
//! What may happen to a job, [`crate::queue`] says; a store lets it happen at one stroke, keeps it, and finds jobs again by what they
//! are: waiting, held by a worker, due. All stores do the same, which the functions in `contract` hold them to.

mod clock;
mod effects;
mod events;
mod memory;
mod redis;
mod shared;
mod space_warning;
mod sqlite;

#[cfg(test)]
mod contract;
#[cfg(test)]
#[path = "../../tests/redis_server/mod.rs"]
mod redis_server;

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::date::UnixTime;
use crate::queue::{Claim, JobState, Record, Submission, Transition};

pub use self::redis::RedisStore;
pub use effects::Counts;
pub use events::{StoreEvent, Subscription};
pub use memory::MemoryStore;
pub use shared::{Admission, RateCheck, WorkerView};
pub use sqlite::{BackupSummary, SqliteStore};

/// A job's payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PayloadKind {
    /// JSON: what the worker works on.
    Input = 0,
    /// A JSON object: what else the client sent, for the worker alone.
    Rest = 1,
    /// JSON: what came of it, or the last word of its progress.
    Output = 2,
    /// JSON: where its time went.
    Timings = 3,
    /// JSON: what its client should know.
    Warnings = 4,
}

/// A job that is handed to a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimedJob {
    /// As it is now that the worker has it.
    pub record: Record,
    /// [`PayloadKind::Input`].
    pub input: Bytes,
    /// [`PayloadKind::Rest`].
    pub rest: Bytes,
}

impl ClaimedJob {
    /// Bytes of its payloads.
    pub fn bytes(&self) -> usize {
        self.input.len() + self.rest.len()
    }
}

/// Who takes jobs, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRequest {
    /// What becomes of each job.
    pub claim: Claim,
    /// Jobs that it takes at most.
    pub max_jobs: usize,
    /// Bytes of payloads that it takes at most, all jobs together; the first is handed out whatever it weighs.
    pub max_bytes: usize,
}

/// A key that opens an endpoint. The key itself is known to its holder alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// What it is called, to revoke it by.
    pub name: String,
    /// Whether it is a worker's.
    pub worker: bool,
    /// The endpoint that it opens; without, all.
    pub endpoint: Option<String>,
    /// SHA-256 of the key, in hexadecimal.
    pub digest: String,
    /// When it was made.
    pub created: UnixTime,
}

/// A store cannot do what it was asked. The caller may ask again; what had been answered is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is such a job, or such a key, already.
    #[error("there is one of this name already")]
    Duplicate,
    /// So many jobs wait already, as many as [may](crate::queue::Rules::max_waiting).
    #[error("{0} jobs wait already, which are as many as may")]
    QueueFull(u64),
    /// There is no room for it. The log has told so, once.
    #[error("the store has no room: {0}")]
    NoSpace(String),
    /// The disk or the server fails.
    #[error("the store fails: {0}")]
    Failed(String),
}

/// What happens to a job, by the laws of [`crate::queue`]. It may be called more than once, on newer records, until it is kept.
pub trait JobEvent: Fn(&mut Record) -> Transition + Send + Sync + 'static {}

impl<F: Fn(&mut Record) -> Transition + Send + Sync + 'static> JobEvent for F {}

/// A job, and payloads of it.
pub type JobWithPayloads = (Record, LoadedPayloads);

/// Payloads that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadedPayloads {
    /// Each, if there is one.
    Read(Vec<Option<Bytes>>),
    /// They have so many bytes together, more than were asked for, and were not read.
    Large(usize),
}

impl LoadedPayloads {
    /// Payloads that are in memory as it is, unless they have more than `most` bytes together.
    fn of(parts: Vec<Option<Bytes>>, most: usize) -> Self {
        let bytes = parts.iter().flatten().map(Bytes::len).sum();
        if bytes > most { Self::Large(bytes) } else { Self::Read(parts) }
    }
}

/// Chunks of a stream, and how many bytes the next one has, if there is one.
pub type TakenChunks = (Vec<Bytes>, Option<usize>);

/// Which payloads of a job are asked for: only who sees it knows.
pub trait PayloadSelection: Fn(&Record) -> Vec<PayloadKind> + Send + Sync + 'static {}

impl<F: Fn(&Record) -> Vec<PayloadKind> + Send + Sync + 'static> PayloadSelection for F {}

/// Keeps the jobs of endpoints.
pub trait Store: Debug + Send + Sync + 'static {
    /// Whether other gateways may be on it at the same time.
    const SHARED: bool = false;

    /// Keeps a new job, at the end of its line, unless as many wait there as may. What is answered with `Ok` outlives the process.
    fn submit(&self, endpoint: &str, job: Submission) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// A job that is there. One that is [gone](Record::hidden) is not, for clients.
    fn read(&self, endpoint: &str, id: &str) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send;

    /// A job, and those of its payloads that it is `wanted` with, in that order, if they have at most so many bytes together; all of one
    /// moment.
    fn find(
        &self,
        endpoint: &str,
        id: &str,
        wanted: impl PayloadSelection,
        most: usize,
    ) -> impl Future<Output = Result<Option<JobWithPayloads>, StoreError>> + Send;

    /// One payload.
    #[cfg(test)]
    fn payload(
        &self,
        endpoint: &str,
        id: &str,
        part: PayloadKind,
    ) -> impl Future<Output = Result<Option<Bytes>, StoreError>> + Send {
        async move {
            Ok(match self.find(endpoint, id, move |_| vec![part], usize::MAX).await? {
                Some((_, LoadedPayloads::Read(mut parts))) => parts.pop().flatten(),
                _ => None,
            })
        }
    }

    /// Lets an event happen to a job. If it means something, `parts` are kept with it, and the parts of a stream that are `chunk`s.
    /// Returns the job as it is then and what the event meant; nothing if there is no such job.
    fn change(
        &self,
        endpoint: &str,
        id: &str,
        event: impl JobEvent,
        parts: Vec<(PayloadKind, Bytes)>,
        chunk: Option<Bytes>,
    ) -> impl Future<Output = Result<Option<(Record, Transition)>, StoreError>> + Send;

    /// Hands out the jobs that wait longest, until the next is too many or too heavy; those of low priority when no other waits.
    fn take(
        &self,
        endpoint: &str,
        request: ClaimRequest,
    ) -> impl Future<Output = Result<Vec<ClaimedJob>, StoreError>> + Send;

    /// The ids of the jobs that a worker holds.
    fn held_by(&self, endpoint: &str, worker: &str) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send;

    /// The ids of all jobs that stand so, the oldest first.
    fn all(&self, endpoint: &str, state: JobState) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send;

    /// The jobs that time does something to by `now`, endpoint and id, the most overdue first.
    fn due(&self, now: UnixTime, most: usize)
    -> impl Future<Output = Result<Vec<(String, String)>, StoreError>> + Send;

    /// When [`Store::due`] will find something.
    fn next_due(&self) -> impl Future<Output = Result<Option<UnixTime>, StoreError>> + Send;

    /// Takes chunks of a job's stream that nobody has taken yet: the oldest, up to `most` bytes of them; none, if the oldest has more.
    fn take_chunks(
        &self,
        endpoint: &str,
        id: &str,
        most: usize,
    ) -> impl Future<Output = Result<TakenChunks, StoreError>> + Send;

    /// Takes the ids of jobs that a worker works on in vain.
    fn take_stops(&self, endpoint: &str, worker: &str) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send;

    /// How many jobs there are and were.
    fn counts(&self, endpoint: &str) -> impl Future<Output = Result<Counts, StoreError>> + Send;

    /// Keeps the time of the queue, by which all that time does is done: what [`Course`](crate::clock::Course) a gateway is `on`, if it is
    /// on one already, and how the wall clock stands to it. Returns what it is: for one that begins, what it was and the time since by the
    /// wall clock, which may have been set back; for others no less than what they are on, and than any on the same queue.
    fn sync_clock(
        &self,
        on: Option<UnixTime>,
        wall: UnixTime,
    ) -> impl Future<Output = Result<UnixTime, StoreError>> + Send;

    /// Whether it does what it is asked now.
    fn ready(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { self.next_due().await.map(drop) }
    }

    /// Gives back some room that it needs no more.
    fn reclaim_space(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }

    /// The keys that there are, by name.
    fn keys(&self) -> impl Future<Output = Result<Vec<KeyRecord>, StoreError>> + Send;

    /// Keeps a key whose name is new.
    fn add_key(&self, key: KeyRecord) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Forgets a key. Returns whether there was one of this name.
    fn remove_key(&self, name: &str) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Counts a request among those that other gateways on the store let pass. Where there are no others, there is nothing to count.
    fn admit(&self, _asking: RateCheck) -> impl Future<Output = Result<Admission, StoreError>> + Send {
        async { Ok(Admission::Yes) }
    }

    /// Says to other gateways how many requests are open at one, by [`RateCheck::asked`]; it holds for as long as one may be silent.
    fn report_open(
        &self,
        _gateway: &str,
        _open: Vec<([u8; 32], u64)>,
        _silent: Duration,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }

    /// Shows to other gateways what one has seen of an endpoint's worker, and tells them so, if it is urgent.
    fn publish_view(
        &self,
        _endpoint: &str,
        _view: WorkerView,
        _urgent: bool,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }

    /// What gateways have shown of an endpoint's workers.
    fn worker_views(&self, _endpoint: &str) -> impl Future<Output = Result<Vec<WorkerView>, StoreError>> + Send {
        async { Ok(Vec::new()) }
    }

    /// What happens from now on, in this process or another.
    fn subscribe(&self) -> Subscription;
}
