//! What goes into stores and comes out of them.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::date::UnixTime;
use crate::queue::{Claim, Record, Transition};

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
    /// Bytes of payloads that it takes at most, all jobs together.
    pub max_bytes: usize,
}

/// Jobs that are handed to a worker; if there are none because the next one has more bytes than were asked for, how many it has.
pub type TakenJobs = (Vec<ClaimedJob>, Option<usize>);

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
pub type JobWithPayloads = (Arc<Record>, LoadedPayloads);

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
    pub(super) fn of(parts: Vec<Option<Bytes>>, most: usize) -> Self {
        let bytes = parts.iter().flatten().map(Bytes::len).sum();
        if bytes > most { Self::Large(bytes) } else { Self::Read(parts) }
    }
}

/// Chunks of a stream, and how many bytes the next one has, if there is one.
pub type TakenChunks = (Vec<Bytes>, Option<usize>);

/// Which payloads of a job are asked for: only who sees it knows.
pub trait PayloadSelection: Fn(&Record) -> Vec<PayloadKind> + Send + Sync + 'static {}

impl<F: Fn(&Record) -> Vec<PayloadKind> + Send + Sync + 'static> PayloadSelection for F {}

/// How many jobs an endpoint has and had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Jobs that wait.
    pub in_queue: u64,
    /// Jobs that workers hold.
    pub in_progress: u64,
    /// Jobs that were completed, ever.
    pub completed: u64,
    /// Jobs that failed or timed out, ever.
    pub failed: u64,
    /// Attempts that were given up and made again, ever.
    pub retried: u64,
}
