//! Results that survive the process: written down first, then posted until their queue takes them or their time is over.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::spool::{EntryHeader, Spool, SpoolEntry, SpoolKind};
use super::{Payload, Sink, Undelivered};
use crate::clock::{Course, WallClock};

/// What stands on a result. Where it goes does not: a spool belongs to a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultHeader {
    job: String,
    streamed: bool,
}

impl EntryHeader for ResultHeader {
    fn job(&self) -> &str {
        &self.job
    }
}

/// Posts results to a queue.
#[derive(Debug)]
pub struct Results<K> {
    /// The queue.
    pub sink: K,
    kind: SpoolKind<ResultHeader>,
    clock: Arc<dyn WallClock>,
    /// Of deadlines: no wait is shorter because a clock was set.
    course: Course,
}

impl<K: Sink> Results<K> {
    /// The results in `spool`, and those that an earlier process left. To be opened once. Blocks.
    pub fn open(spool: &Spool, sink: K, clock: Arc<dyn WallClock>) -> (Self, Vec<SpoolEntry<ResultHeader>>) {
        let (kind, left) = spool.open_kind("results", clock.now());
        (Self { sink, kind, course: Course::new(clock.clone()), clock }, left)
    }

    /// The date by which files are old.
    pub fn clock(&self) -> &dyn WallClock {
        &*self.clock
    }

    /// Writes down the end of a job that somebody waits for for so long; `streamed` says whether parts of it were sent before.
    pub async fn keep(&self, job: &str, streamed: bool, time: Duration, body: Bytes) -> SpoolEntry<ResultHeader> {
        self.kind.keep(ResultHeader { job: job.into(), streamed }, self.course.now() + time, body).await
    }

    /// Posts what was kept, with its body, for as long as somebody waits for it. What is taken, or never will be, is
    /// [`SpoolEntry::done`] after that.
    ///
    /// # Errors
    /// Its time is over, or the queue will never take it.
    pub async fn post(&self, entry: &SpoolEntry<ResultHeader>, body: Bytes) -> Result<(), Undelivered> {
        let (ResultHeader { job, streamed }, time) =
            (entry.header().clone(), self.course.now().until(entry.deadline()));
        self.sink.done(Payload { id: job, body, streamed, time }).await
    }
}
