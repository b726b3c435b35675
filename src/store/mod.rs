//! Where an endpoint keeps its jobs.
//!
//! What may happen to a job, [`crate::queue`] says; a store lets it happen in one step, keeps it, and finds jobs again by what they
//! are: waiting, held by a worker, due. All stores do the same, which the functions in `contract` hold them to.

mod clock;
mod effects;
mod events;
mod memory;
mod page;
mod redis;
mod shared;
mod space_warning;
mod sqlite;
mod types;

#[cfg(test)]
mod contract;
#[cfg(test)]
#[path = "../../tests/redis_server/mod.rs"]
mod redis_server;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use crate::date::UnixTime;
use crate::queue::{JobState, Record, Submission, Transition};

pub use self::redis::RedisStore;
pub use events::{StoreEvent, Subscription};
pub use memory::MemoryStore;
pub use page::{JobPage, PageQuery};
pub use shared::{Admission, RateCheck, WorkerView};
pub use sqlite::{BackupSummary, SqliteStore};
pub use types::{
    ClaimRequest, ClaimedJob, Counts, JobEvent, JobWithPayloads, KeyRecord, LoadedPayloads, PayloadKind,
    PayloadSelection, StoreError, TakenChunks, TakenJobs,
};

/// A value as the stores keep it.
fn json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Failed(error.to_string()))
}

/// Keeps the jobs of endpoints. Where nothing else is said, an error is that the disk or the server fails, which has changed nothing that was
/// answered before.
pub trait Store: Debug + Send + Sync + 'static {
    /// Whether other gateways may be on it at the same time.
    const SHARED: bool = false;

    /// Keeps a new job, at the end of its line, unless as many wait there as may. What is answered with `Ok` outlives the process.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`], [`StoreError::QueueFull`] and [`StoreError::NoSpace`], too.
    fn submit(&self, endpoint: &str, job: Submission) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// A job that is there. One that is [hidden](Record::hidden) is not, for clients.
    fn read(&self, endpoint: &str, id: &str) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send;

    /// A job, and those of its payloads that it is `wanted` with, in that order, if they have at most `most` bytes together; all of one moment.
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
    fn take(&self, endpoint: &str, request: ClaimRequest)
    -> impl Future<Output = Result<TakenJobs, StoreError>> + Send;

    /// The ids of the jobs that a worker holds.
    fn held_by(&self, endpoint: &str, worker: &str) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send;

    /// The ids of all jobs that stand so, the oldest first.
    fn ids_in_state(
        &self,
        endpoint: &str,
        state: JobState,
    ) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send;

    /// The jobs of an endpoint that clients can see, a page of them. What goes while it is read may be missing from it.
    fn page(&self, endpoint: &str, query: PageQuery) -> impl Future<Output = Result<JobPage, StoreError>> + Send;

    /// When the job was submitted that is next in line, if any waits.
    fn next_submitted(&self, endpoint: &str) -> impl Future<Output = Result<Option<UnixTime>, StoreError>> + Send;

    /// Those of these workers that hold jobs.
    fn busy_workers(
        &self,
        endpoint: &str,
        workers: Vec<String>,
    ) -> impl Future<Output = Result<BTreeSet<String>, StoreError>> + Send;

    /// The jobs that time does something to by `now`, endpoint and id, the most overdue first.
    fn due(&self, now: UnixTime, most: usize)
    -> impl Future<Output = Result<Vec<(String, String)>, StoreError>> + Send;

    /// When [`Store::due`] will find something.
    fn next_due(&self) -> impl Future<Output = Result<Option<UnixTime>, StoreError>> + Send;

    /// Takes chunks of a job's stream that were not taken yet: the oldest, up to `most` bytes of them; none, if the oldest has more.
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
    ///
    /// # Errors
    /// [`StoreError::Duplicate`], too.
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
