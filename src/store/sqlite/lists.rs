//! Which jobs there are, and how many.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, params};

use crate::date::UnixTime;
use crate::queue::{JobState, Record};

use super::super::effects::Tally;
use super::super::page::{JobPage, PageQuery, Slice};
use super::super::{Counts, StoreError};
use super::tables::{Tables, read};

impl Tables<'_> {
    /// Ids of jobs that stand so, in line.
    pub(super) fn line(&self, endpoint: &str, state: JobState) -> Result<Vec<String>, StoreError> {
        let text = "SELECT id FROM jobs WHERE endpoint = ?1 AND state = ?2 AND gone = 0 ORDER BY low, place";
        self.rows(text, params![endpoint, state as u8], |row| row.get(0))
    }

    pub(super) fn held_by(&self, endpoint: &str, worker: &str) -> Result<Vec<String>, StoreError> {
        let text = "SELECT id FROM jobs WHERE endpoint = ?1 AND holder = ?2 ORDER BY id";
        self.rows(text, params![endpoint, worker], |row| row.get(0))
    }

    pub(super) fn counts(&self, endpoint: &str) -> Result<Counts, StoreError> {
        let stand = |state| self.count(endpoint, state).map(|count| count as u64);
        let ever = |tally: Tally| self.tally(endpoint, tally.name());
        Ok(Counts {
            in_queue: stand(JobState::InQueue)?,
            in_progress: stand(JobState::InProgress)?,
            completed: ever(Tally::Completed)?,
            failed: ever(Tally::Failed)?,
            retried: ever(Tally::Retried)?,
        })
    }

    fn count(&self, endpoint: &str, state: JobState) -> Result<usize, StoreError> {
        let text = "SELECT count(*) FROM jobs WHERE endpoint = ?1 AND state = ?2 AND gone = 0";
        let values = params![endpoint, state as u8];
        let count: i64 = self.db.prepare_cached(text)?.query_row(values, |row| row.get(0))?;
        Ok(count as usize)
    }

    pub(super) fn page(&self, endpoint: &str, query: &PageQuery) -> Result<JobPage, StoreError> {
        // What is read within it is of one moment.
        let _moment = self.db.unchecked_transaction()?;
        let counts = query.states.iter().map(|state| self.count(endpoint, *state)).collect::<Result<Vec<_>, _>>()?;
        let mut jobs = Vec::new();
        for slice in query.slices(&counts) {
            jobs.extend(self.slice(endpoint, slice)?);
        }
        Ok(JobPage { jobs, total: counts.iter().sum() })
    }

    fn slice(&self, endpoint: &str, slice: Slice) -> Result<Vec<Record>, StoreError> {
        let text = "SELECT id, record FROM jobs WHERE endpoint = ?1 AND state = ?2 AND gone = 0
                    ORDER BY low, place LIMIT ?3 OFFSET ?4";
        let values = params![endpoint, slice.state as u8, slice.limit as i64, slice.offset as i64];
        let rows: Vec<(String, String)> = self.rows(text, values, |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.iter().map(|(id, record)| read(id, record)).collect()
    }

    pub(super) fn next_submitted(&self, endpoint: &str) -> Result<Option<UnixTime>, StoreError> {
        let next = Slice { state: JobState::InQueue, offset: 0, limit: 1 };
        Ok(self.slice(endpoint, next)?.first().map(|record| record.submitted))
    }

    pub(super) fn busy_workers(&self, endpoint: &str, workers: Vec<String>) -> Result<BTreeSet<String>, StoreError> {
        let text = "SELECT 1 FROM jobs WHERE endpoint = ?1 AND holder = ?2 LIMIT 1";
        let mut select = self.db.prepare_cached(text)?;
        let mut busy = BTreeSet::new();
        for worker in workers {
            if select.query_row(params![endpoint, worker], |_| Ok(())).optional()?.is_some() {
                busy.insert(worker);
            }
        }
        Ok(busy)
    }
}
