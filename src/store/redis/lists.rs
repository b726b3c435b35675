//! Which jobs there are, and how many.

use std::collections::BTreeSet;

use redis::pipe;

use crate::queue::JobState;

use super::super::effects::Tally;
use super::super::page::{JobPage, PageQuery};
use super::super::{Counts, StoreError};
use super::RedisStore;
use super::keys::{self, EndpointKeys};
use super::records::{Raw, stored_job};
use super::write::CLAIM_FIELD;

impl RedisStore {
    async fn endpoints(&self) -> Result<Vec<String>, StoreError> {
        let (endpoints,): (Vec<String>,) = self.connection.ask(pipe().smembers(keys::endpoints())).await?;
        Ok(endpoints)
    }

    /// The jobs of each endpoint that time does something to, the most overdue first.
    pub(super) async fn timers(&self, until: &str, most: isize) -> Result<Vec<(u64, String, String)>, StoreError> {
        let endpoints = self.endpoints().await?;
        if endpoints.is_empty() {
            return Ok(Vec::new());
        }
        let mut ask = pipe();
        for endpoint in &endpoints {
            ask.zrangebyscore_limit_withscores(EndpointKeys(endpoint).due(), "-inf", until, 0, most);
        }
        let found: Vec<Vec<(String, f64)>> = self.connection.ask(&ask).await?;
        let found = endpoints.into_iter().zip(found);
        let timers = found
            .flat_map(|(endpoint, found)| found.into_iter().map(move |(id, due)| (due as u64, endpoint.clone(), id)));
        let mut timers: Vec<_> = timers.collect();
        timers.sort();
        Ok(timers)
    }

    pub(super) async fn count_jobs(&self, keys: EndpointKeys<'_>) -> Result<Counts, StoreError> {
        type Ever = (Option<u64>, Option<u64>, Option<u64>);
        let tallies = [Tally::Completed, Tally::Failed, Tally::Retried].map(Tally::name);
        let mut ask = pipe();
        ask.zcard(keys.line(JobState::InQueue)).zcard(keys.line(JobState::InProgress));
        ask.cmd("HMGET").arg(keys.counters()).arg(&tallies);
        let (in_queue, in_progress, (completed, failed, retried)): (u64, u64, Ever) = self.connection.ask(&ask).await?;
        let ever = |count: Option<u64>| count.unwrap_or(0);
        Ok(Counts { in_queue, in_progress, completed: ever(completed), failed: ever(failed), retried: ever(retried) })
    }

    pub(super) async fn read_page(&self, keys: EndpointKeys<'_>, query: &PageQuery) -> Result<JobPage, StoreError> {
        let mut ask = pipe();
        for state in &query.states {
            ask.zcard(keys.line(*state));
        }
        let counts: Vec<usize> = if query.states.is_empty() { Vec::new() } else { self.connection.ask(&ask).await? };
        let mut page = JobPage { jobs: Vec::new(), total: counts.iter().sum() };
        let slices = query.slices(&counts);
        if slices.is_empty() {
            return Ok(page);
        }
        let mut ask = pipe();
        for slice in slices {
            ask.zrange(keys.line(slice.state), slice.offset as isize, (slice.offset + slice.limit - 1) as isize);
        }
        let ids: Vec<Vec<String>> = self.connection.ask(&ask).await?;
        let mut ask = pipe();
        for id in ids.iter().flatten() {
            ask.cmd("HMGET").arg(keys.job(id)).arg(&["v", "s", "r", CLAIM_FIELD]);
        }
        if ids.iter().any(|ids| !ids.is_empty()) {
            let found: Vec<Raw> = self.connection.ask(&ask).await?;
            for raw in found {
                page.jobs.extend(stored_job(raw)?.map(|job| job.record));
            }
        }
        Ok(page)
    }

    pub(super) async fn who_holds_jobs(
        &self,
        keys: EndpointKeys<'_>,
        workers: Vec<String>,
    ) -> Result<BTreeSet<String>, StoreError> {
        if workers.is_empty() {
            return Ok(BTreeSet::new());
        }
        let mut ask = pipe();
        for worker in &workers {
            ask.exists(keys.held(worker));
        }
        let hold: Vec<bool> = self.connection.ask(&ask).await?;
        Ok(workers.into_iter().zip(hold).filter(|(_, holds)| *holds).map(|(worker, _)| worker).collect())
    }
}
