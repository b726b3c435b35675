//! The part of the disk that no new job may take: it is for what comes of those that are there.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::Instant;

use super::super::StoreError;
use super::super::space_warning::SpaceWarning;
use super::vacuum::{pages, read};
use crate::disk;

/// How long what was seen of the disk is believed.
const DISK_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The part of a reserve that must be free on the disk itself: what is written goes to a log beside the file first, whatever room is in the file.
const LOG_SHARE: u64 = 4;

/// What is free, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Free {
    /// On the disk.
    pub(super) disk: u64,
    /// In the file, where jobs were erased.
    pub(super) file: u64,
}

type FreeSpace = Box<dyn Fn(&Connection) -> io::Result<Free> + Send + Sync>;

/// Looks at the disk.
pub(super) struct DiskReserve {
    /// Of which disk, for people.
    place: PathBuf,
    /// Without, jobs are taken as long as there is any room.
    bytes: Option<u64>,
    ask: FreeSpace,
    seen: Mutex<DiskState>,
    space_warning: SpaceWarning,
}

#[derive(Debug, Default)]
struct DiskState {
    until: Option<Instant>,
    lack: Option<String>,
}

impl fmt::Debug for DiskReserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskReserve").field("place", &self.place).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl DiskReserve {
    /// On the disk of the store in `file`.
    pub(super) fn new(file: &Path, bytes: Option<u64>) -> Self {
        let at = file.to_owned();
        let ask = move |db: &Connection| Ok(Free { disk: disk::of(&at)?.free, file: erased(db).unwrap_or(0) });
        Self::asking(disk::mount(file), bytes, Box::new(ask))
    }

    pub(super) fn asking(place: PathBuf, bytes: Option<u64>, ask: FreeSpace) -> Self {
        Self { place, bytes, ask, seen: Mutex::default(), space_warning: SpaceWarning::default() }
    }

    /// Whether a new job may be taken. The disk is asked once a second; one that does not answer has room.
    pub(super) fn check(&self, db: &Connection, now: Instant) -> Result<(), StoreError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.until.is_none_or(|until| until <= now) {
            let lack = self.bytes.and_then(|bytes| self.lack((self.ask)(db).ok()?, bytes));
            *seen = DiskState { until: Some(now + DISK_CHECK_INTERVAL), lack };
        }
        match &seen.lack {
            Some(why) => {
                self.space_warning.report_full(why);
                Err(StoreError::NoSpace(why.clone()))
            }
            None => Ok(()),
        }
    }

    /// What the error of a write means. If the disk is full, no new job is taken for a moment, so that nothing else is undone with it.
    pub(super) fn hear(&self, error: StoreError, now: Instant) -> StoreError {
        let StoreError::NoSpace(why) = error else { return error };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.lack.as_ref() == Some(&why) {
            // Our own word.
            return StoreError::NoSpace(why);
        }
        let why = format!("the disk at {} is full: {why}", self.place.display());
        self.space_warning.report_full(&why);
        *seen = DiskState { until: Some(now + DISK_CHECK_INTERVAL), lack: Some(why.clone()) };
        StoreError::NoSpace(why)
    }

    /// A new job has been written.
    pub(super) fn taken(&self) {
        self.space_warning.report_space();
    }

    fn lack(&self, free: Free, bytes: u64) -> Option<String> {
        let Free { disk, file } = free;
        (disk.saturating_add(file) < bytes || disk < bytes / LOG_SHARE).then(|| {
            format!(
                "the disk at {} has {} free, and the queue's file {} within; gateway.min_free keeps {}",
                self.place.display(),
                mib(disk),
                mib(file),
                mib(bytes)
            )
        })
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Bytes of the file that are free.
fn erased(db: &Connection) -> rusqlite::Result<u64> {
    Ok(pages(db)?.1 * read(db, "page_size")?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn new_jobs_leave_the_reserve_alone_and_the_disk_is_asked_once_a_second() {
        let [free, file, asked] = [100 << 20, 10 << 20, 0].map(|value: u64| Arc::new(AtomicU64::new(value)));
        let ask = {
            let (free, file, asked) = (free.clone(), file.clone(), asked.clone());
            move |_: &Connection| {
                asked.fetch_add(1, Ordering::Relaxed);
                Ok(Free { disk: free.load(Ordering::Relaxed), file: file.load(Ordering::Relaxed) })
            }
        };
        let reserve = DiskReserve::asking("/disk".into(), Some(80 << 20), Box::new(ask));
        let (db, start) = (Connection::open_in_memory().unwrap(), Instant::now());
        let check = |millis| reserve.check(&db, start + Duration::from_millis(millis));
        check(0).unwrap();
        free.store(69 << 20, Ordering::Relaxed);
        check(999).unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        for millis in [1000, 1500, 1999] {
            let why = check(millis).unwrap_err();
            let wanted = "the disk at /disk has 69.0 MiB free, and the queue's file 10.0 MiB within; gateway.min_free keeps 80.0 MiB";
            assert_eq!(why, StoreError::NoSpace(wanted.into()));
            assert_eq!(reserve.hear(why.clone(), start + Duration::from_millis(millis)), why, "which changes nothing");
        }
        assert!(!reserve.space_warning.report_full("again"), "it was told");
        free.store(70 << 20, Ordering::Relaxed);
        check(2000).unwrap();
        assert_eq!(
            (asked.load(Ordering::Relaxed), reserve.space_warning.report_space(), reserve.space_warning.report_space()),
            (3, true, false)
        );
        // What is erased in the file is no room for the log beside it.
        file.store(1 << 30, Ordering::Relaxed);
        free.store(20 << 20, Ordering::Relaxed);
        check(3000).unwrap();
        free.store((20 << 20) - 1, Ordering::Relaxed);
        check(4000).unwrap_err();
    }

    #[test]
    fn a_full_disk_takes_no_job_for_a_moment_whatever_is_kept_free() {
        let reserve = DiskReserve::asking("/disk".into(), None, Box::new(|_| Err(io::ErrorKind::NotFound.into())));
        let (db, start) = (Connection::open_in_memory().unwrap(), Instant::now());
        let other = StoreError::Failed("x".into());
        assert_eq!(reserve.hear(other.clone(), start), other);
        reserve.check(&db, start).unwrap();
        let full = reserve.hear(StoreError::NoSpace("no page".into()), start);
        assert_eq!(full, StoreError::NoSpace("the disk at /disk is full: no page".into()));
        assert_eq!(reserve.check(&db, start), Err(full));
        reserve.check(&db, start + DISK_CHECK_INTERVAL).unwrap();
    }
}
