//! What is asked of the tables.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::date::UnixTime;
use crate::queue::{JobState, Record, Rules, Submission, Transition};

use super::super::effects::effects;
use super::super::events::StoreEvent;
use super::super::{ClaimRequest, ClaimedJob, PayloadKind, StoreError, TakenJobs, json};
use super::status_cache::StatusCache;

/// The tables, through a connection.
pub(super) struct Tables<'a> {
    pub(super) db: &'a Connection,
    pub(super) rules: &'a Rules,
    pub(super) cache: &'a StatusCache,
}

/// Milliseconds that a worker may take to ask what it works on in vain: a day, as in Redis.
const STOP_RETENTION: i64 = 24 * 3_600_000;

/// The tally of jobs that wait.
const WAITING_TALLY: &str = "waiting";

/// The last place in an endpoint's line, plus one.
const NEXT_PLACE: &str = "(SELECT 1 + ifnull(max(place), 0) FROM jobs WHERE endpoint = ?1)";

impl Tables<'_> {
    pub(super) fn insert(&self, endpoint: &str, job: &Submission) -> Result<(), StoreError> {
        let Submission { record, input, rest } = job;
        // Kept beside them: to count a long line at each job would be slow.
        if let Some(most) = self.rules.max_waiting
            && self.tally(endpoint, WAITING_TALLY)? >= most
        {
            let there = self.record(endpoint, &record.id)?.is_some();
            return Err(if there { StoreError::Duplicate } else { StoreError::QueueFull(most) });
        }
        let text = format!(
            "INSERT INTO jobs (endpoint, id, record, state, gone, low, due, expires, place)
             VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, ?7, {NEXT_PLACE}) ON CONFLICT DO NOTHING"
        );
        let (due, expires) = (self.due_of(record), millis(record.expires));
        let values = params![endpoint, record.id, json(record)?, record.state as u8, record.low_priority, due, expires];
        if self.db.prepare_cached(&text)?.execute(values)? == 0 {
            return Err(StoreError::Duplicate);
        }
        self.cache.invalidate(&record.id, false);
        self.add(endpoint, WAITING_TALLY, 1)?;
        self.keep_part(endpoint, &record.id, PayloadKind::Input, input.get().as_bytes())?;
        if !rest.is_empty() {
            self.keep_part(endpoint, &record.id, PayloadKind::Rest, json(rest)?.as_bytes())?;
        }
        Ok(())
    }

    pub(super) fn record(&self, endpoint: &str, id: &str) -> Result<Option<Record>, StoreError> {
        let mut select = self.db.prepare_cached("SELECT record FROM jobs WHERE endpoint = ?1 AND id = ?2")?;
        let text: Option<String> = select.query_row(params![endpoint, id], |row| row.get(0)).optional()?;
        text.map(|text| read(id, &text)).transpose()
    }

    /// Lets an event happen, and what follows from it.
    pub(super) fn change(
        &self,
        endpoint: &str,
        id: &str,
        event: impl FnOnce(&mut Record) -> Transition,
    ) -> Result<Option<(Record, Transition, Vec<StoreEvent>)>, StoreError> {
        let Some(before) = self.record(endpoint, id)? else { return Ok(None) };
        self.follow(endpoint, before, event, false).map(Some)
    }

    /// Lets an event happen to what is there of a job; one that is `loose`, so that a crash may undo it.
    fn follow(
        &self,
        endpoint: &str,
        before: Record,
        event: impl FnOnce(&mut Record) -> Transition,
        loose: bool,
    ) -> Result<(Record, Transition, Vec<StoreEvent>), StoreError> {
        let (mut after, id) = (before.clone(), &*before.id);
        let transition = event(&mut after);
        if transition == Transition::Unchanged {
            return Ok((before, transition, Vec::new()));
        }
        self.cache.invalidate(id, loose);
        let effects = effects(endpoint, &before, &after, &transition);
        for part in effects.stale {
            self.run(
                "DELETE FROM parts WHERE endpoint = ?1 AND id = ?2 AND part = ?3",
                params![endpoint, id, *part as u8],
            )?;
        }
        if effects.clear_stream {
            self.run("DELETE FROM chunks WHERE endpoint = ?1 AND id = ?2", params![endpoint, id])?;
        }
        for tally in effects.tallies {
            self.add(endpoint, tally.name(), 1)?;
        }
        match (waits(&before), waits(&after)) {
            (false, true) => self.add(endpoint, WAITING_TALLY, 1)?,
            (true, false) => self.add(endpoint, WAITING_TALLY, -1)?,
            _ => {}
        }
        if let Transition::Stop(worker) = &transition {
            self.stop(endpoint, worker, &after)?;
        }
        if after.is_disposable() {
            self.erase(endpoint, id)?;
        } else {
            self.update(endpoint, &after, effects.to_back)?;
        }
        Ok((after, transition, effects.events))
    }

    fn add(&self, endpoint: &str, tally: &str, change: i64) -> Result<(), StoreError> {
        let text = "INSERT INTO tallies VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET count = count + ?3";
        self.run(text, params![endpoint, tally, change])
    }

    pub(super) fn tally(&self, endpoint: &str, tally: &str) -> Result<u64, StoreError> {
        let mut select = self.db.prepare_cached("SELECT count FROM tallies WHERE endpoint = ?1 AND name = ?2")?;
        let count: Option<i64> = select.query_row(params![endpoint, tally], |row| row.get(0)).optional()?;
        Ok(count.unwrap_or(0) as u64)
    }

    fn update(&self, endpoint: &str, record: &Record, to_back: bool) -> Result<(), StoreError> {
        let due = self.due_of(record);
        let set = "UPDATE jobs SET record = ?3, state = ?4, gone = ?5, holder = ?6, due = ?7";
        let place = if to_back { format!(", place = {NEXT_PLACE}") } else { String::new() };
        let values =
            params![endpoint, record.id, json(record)?, record.state as u8, record.hidden, record.holder(), due];
        self.run(&format!("{set}{place} WHERE endpoint = ?1 AND id = ?2"), values)
    }

    fn due_of(&self, record: &Record) -> i64 {
        millis(record.due(self.rules))
    }

    fn erase(&self, endpoint: &str, id: &str) -> Result<(), StoreError> {
        for table in ["jobs", "parts", "chunks"] {
            self.run(&format!("DELETE FROM {table} WHERE endpoint = ?1 AND id = ?2"), params![endpoint, id])?;
        }
        Ok(())
    }

    pub(super) fn take(
        &self,
        endpoint: &str,
        request: &ClaimRequest,
    ) -> Result<(TakenJobs, Vec<StoreEvent>), StoreError> {
        let (mut handed, mut large) = (Vec::new(), None);
        let (mut all_events, mut left) = (Vec::new(), request.max_bytes);
        // One that has expired waits only to be forgotten.
        let text = "SELECT id, record FROM jobs WHERE endpoint = ?1 AND state = ?2 AND gone = 0 AND expires > ?3 ORDER BY low, place LIMIT ?4";
        let most = i64::try_from(request.max_jobs).unwrap_or(-1);
        let values = params![endpoint, JobState::InQueue as u8, millis(request.claim.at), most];
        let rows = self.rows(text, values, |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        // Before anything is changed: one that cannot be read undoes nothing of others.
        let waiting: Vec<Record> = rows.iter().map(|(id, record)| read(id, record)).collect::<Result<_, _>>()?;
        for (record, (id, _)) in waiting.into_iter().zip(rows) {
            let (input, rest) = match self.submitted(endpoint, &id, left)? {
                Ok(given) => given,
                Err(bytes) => {
                    large = handed.is_empty().then_some(bytes);
                    break;
                }
            };
            left = left.saturating_sub(input.len() + rest.len());
            let start = |record: &mut Record| record.start(&request.claim);
            let (record, Transition::Changed, events) = self.follow(endpoint, record, start, true)? else { continue };
            all_events.extend(events);
            handed.push(ClaimedJob { record, input, rest });
        }
        Ok(((handed, large), all_events))
    }

    /// What a client sent, [`PayloadKind::Input`] and [`PayloadKind::Rest`], if it has at most so many bytes; else how many they are together; a part that is larger alone is not read.
    fn submitted(&self, endpoint: &str, id: &str, most: usize) -> Result<Result<(Bytes, Bytes), usize>, StoreError> {
        let text = "SELECT part, length(body), CASE WHEN length(body) <= ?4 THEN body END FROM parts \
                    WHERE endpoint = ?1 AND id = ?2 AND part <= ?3";
        let values = params![endpoint, id, PayloadKind::Rest as u8, i64::try_from(most).unwrap_or(i64::MAX)];
        let read = |row: &Row<'_>| {
            Ok((row.get::<_, u8>(0)?, row.get::<_, i64>(1)? as usize, row.get::<_, Option<Vec<u8>>>(2)?))
        };
        let (mut input, mut rest, mut bytes) = (Bytes::new(), Bytes::from_static(b"{}"), 0);
        for (part, length, body) in self.rows(text, values, read)? {
            bytes += length;
            *(if part == PayloadKind::Rest as u8 { &mut rest } else { &mut input }) = body.unwrap_or_default().into();
        }
        Ok(if bytes > most { Err(bytes) } else { Ok((input, rest)) })
    }

    pub(super) fn due(&self, now: UnixTime, most: usize) -> Result<Vec<(String, String)>, StoreError> {
        let text = "SELECT endpoint, id FROM jobs WHERE due <= ?1 ORDER BY due, endpoint, id LIMIT ?2";
        let most = i64::try_from(most).unwrap_or(-1);
        self.rows(text, params![millis(now), most], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    pub(super) fn next_due(&self) -> Result<Option<UnixTime>, StoreError> {
        let mut select = self.db.prepare_cached("SELECT min(due) FROM jobs")?;
        let due: Option<i64> = select.query_row([], |row| row.get(0))?;
        Ok(due.map(|due| UnixTime::from_millis(due as u64)))
    }

    /// Keeps for a worker that it works on a job in vain, and forgets what workers have not come to hear.
    fn stop(&self, endpoint: &str, worker: &str, record: &Record) -> Result<(), StoreError> {
        let ended = millis(record.ended.unwrap_or(record.submitted));
        self.run("DELETE FROM stops WHERE ended < ?1", [ended - STOP_RETENTION])?;
        let text = "INSERT INTO stops (endpoint, worker, id, ended) VALUES (?1, ?2, ?3, ?4)";
        self.run(text, params![endpoint, worker, record.id, ended])
    }

    pub(super) fn take_stops(&self, endpoint: &str, worker: &str) -> Result<Vec<String>, StoreError> {
        let ids = "SELECT id FROM stops WHERE endpoint = ?1 AND worker = ?2 ORDER BY number";
        let ids = self.rows(ids, params![endpoint, worker], |row| row.get(0))?;
        self.run("DELETE FROM stops WHERE endpoint = ?1 AND worker = ?2", params![endpoint, worker])?;
        Ok(ids)
    }

    pub(super) fn run(&self, text: &str, values: impl rusqlite::Params) -> Result<(), StoreError> {
        self.db.prepare_cached(text)?.execute(values)?;
        Ok(())
    }

    pub(super) fn rows<T>(
        &self,
        text: &str,
        values: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let mut select = self.db.prepare_cached(text)?;
        let rows = select.query_map(values, read)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

/// Whether it is one that somebody may take.
fn waits(record: &Record) -> bool {
    record.state == JobState::InQueue && !record.hidden
}

pub(super) fn millis(date: UnixTime) -> i64 {
    date.as_millis().try_into().unwrap_or(i64::MAX)
}

pub(super) fn read(id: &str, record: &str) -> Result<Record, StoreError> {
    let why = |error| StoreError::Failed(format!("what it has of job {id} cannot be read: {error}"));
    serde_json::from_str(record).map_err(why)
}
