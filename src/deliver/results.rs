//! Results that survive the process: written down first, then posted until their queue takes them or nobody waits any more.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::spool::{Kept, Note, Spool, Tray};
use super::{Parcel, Sink, Undelivered};
use crate::clock::{Course, WallClock};

/// What stands on a result. Where it goes does not: a spool belongs to a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slip {
    job: String,
    streamed: bool,
}

impl Note for Slip {
    fn job(&self) -> &str {
        &self.job
    }
}

/// Posts results to a queue.
#[derive(Debug)]
pub struct Results<K> {
    /// The queue.
    pub sink: K,
    tray: Tray<Slip>,
    clock: Arc<dyn WallClock>,
    /// Of deadlines: nobody waits shorter because a clock was set.
    course: Course,
}

impl<K: Sink> Results<K> {
    /// The results in `spool`, and those that an earlier process left. To be opened once. Blocks.
    pub fn open(spool: &Spool, sink: K, clock: Arc<dyn WallClock>) -> (Self, Vec<Kept<Slip>>) {
        let (tray, left) = spool.tray("results", clock.now());
        (Self { sink, tray, course: Course::new(clock.clone()), clock }, left)
    }

    /// The date by which files are old.
    pub fn clock(&self) -> &dyn WallClock {
        &*self.clock
    }

    /// Writes down the end of a job that somebody waits for for so long; `streamed` says whether parts of it were sent before.
    pub async fn keep(&self, job: &str, streamed: bool, time: Duration, body: Bytes) -> Kept<Slip> {
        self.tray.keep(Slip { job: job.into(), streamed }, self.course.now() + time, body).await
    }

    /// Posts what was kept, with its body, for as long as somebody waits for it. What is taken, or never will be, is
    /// [`Kept::done`] after that.
    pub async fn post(&self, kept: &Kept<Slip>, body: Bytes) -> Result<(), Undelivered> {
        let (Slip { job, streamed }, time) = (kept.note().clone(), self.course.now().until(kept.deadline()));
        self.sink.done(Parcel { id: job, body, streamed, time }).await
    }
}
