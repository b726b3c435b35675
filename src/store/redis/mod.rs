//! Jobs in a Redis: the store of several gateways.
//!
//! The laws of a job are Rust, and Redis cannot run them. So a gateway reads a job with its version, works out what an event makes of it,
//! and has a script write that in one step if the version is still the same; else it begins again with what another gateway has made
//! of the job. Versions are never the same twice, so that a gateway that got no answer can ask again and see that it was heard.
//!
//! Many take from one line at the same moment, and each would have to begin again. So a job is handed out by one script, which lays beside
//! its record who has it since when; whoever reads it has the laws make of that what they do.
//!
//! When the memory of Redis is full, a job is refused; what happens to jobs that are there is written all the same.

mod address;
mod connection;
mod keys;
mod lists;
mod records;
mod shared;
mod take;
mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::{Script, ScriptInvocation, pipe};

use crate::date::UnixTime;
use crate::queue::{JobState, Record, Rules, Submission, Transition};

use super::effects::effects;
use super::events::{EventSender, StoreEvent, Subscription};
use super::page::{JobPage, PageQuery};
use super::shared::{Admission, RateCheck, WorkerView};
use super::space_warning::SpaceWarning;
use super::{
    ClaimRequest, Counts, JobEvent, JobWithPayloads, KeyRecord, LoadedPayloads, PayloadKind, PayloadSelection, Store,
    StoreError, TakenChunks, TakenJobs, json,
};
use connection::Connection;
use keys::EndpointKeys;
use records::{Raw, stored_job};
use write::{CLAIM_FIELD, JobChange, JobWrite, StoredJob, beyond, millis, version};

/// The version of what is kept.
const STORE_VERSION: u32 = 3;

/// Jobs in a Redis.
#[derive(Debug)]
pub struct RedisStore {
    connection: Connection,
    rules: Rules,
    sender: Arc<EventSender>,
    space_warning: SpaceWarning,
    submit: Script,
    write: Script,
    take: Script,
    find: Script,
    drain: Script,
    meter: Script,
    open: Script,
    time: Script,
    ready: Script,
}

impl RedisStore {
    /// Connects to a URL: `redis`, `rediss`, `valkey`, `valkeys`, a `+sentinel` or a `+unix` one.
    ///
    /// # Errors
    /// There is none, it is too old, or it has jobs of a newer latentd. No error has the password in it.
    pub async fn open(url: &str, rules: Rules) -> Result<Self, StoreError> {
        let sender = Arc::new(EventSender::new());
        let connection = Connection::open(url, sender.clone()).await?;
        let (format,): (Option<u32>,) = connection.ask(pipe().get(keys::format())).await?;
        match format {
            None => connection.ask(pipe().set_nx(keys::format(), STORE_VERSION).ignore()).await?,
            Some(format) if format > STORE_VERSION => {
                let why = format!("its jobs are of a newer latentd (version {format}, this one knows {STORE_VERSION})");
                return Err(StoreError::Failed(why));
            }
            // What the versions before wrote is read as it is.
            Some(format) if format < STORE_VERSION => {
                let () = connection.ask(pipe().set(keys::format(), STORE_VERSION).ignore()).await?;
            }
            Some(_) => {}
        }
        // The flags say what may run when the memory is full.
        let script = |flags: &str, text: &str| Script::new(&format!("#!lua{flags}\n{text}"));
        Ok(Self {
            connection,
            rules,
            sender,
            space_warning: SpaceWarning::default(),
            submit: script("", include_str!("submit.lua")),
            write: script(" flags=allow-oom", include_str!("write.lua")),
            take: script(" flags=allow-oom", include_str!("take.lua")),
            find: script(" flags=no-writes,allow-oom", include_str!("find.lua")),
            drain: script(" flags=allow-oom", include_str!("drain.lua")),
            meter: script(" flags=allow-oom", include_str!("meter.lua")),
            open: script(" flags=allow-oom", include_str!("open.lua")),
            time: script(" flags=allow-oom", include_str!("time.lua")),
            // A write, which only a server that takes writes runs, of nothing, by a script as nearly all is written.
            ready: script(" flags=allow-oom", "redis.call('DEL', KEYS[1])"),
        })
    }

    async fn seen(&self, keys: EndpointKeys<'_>, id: &str) -> Result<Option<StoredJob>, StoreError> {
        let (raw,): (Raw,) =
            self.connection.ask(pipe().cmd("HMGET").arg(keys.job(id)).arg(&["v", "s", "r", CLAIM_FIELD])).await?;
        stored_job(raw)
    }

    /// Payloads of a job; none if it is no longer as it was seen.
    async fn parts(
        &self,
        keys: EndpointKeys<'_>,
        id: &str,
        seen: &StoredJob,
        parts: &[PayloadKind],
    ) -> Result<Option<Vec<Option<Vec<u8>>>>, StoreError> {
        // Bytes would be one text.
        let fields: Vec<u32> = parts.iter().map(|part| *part as u32).collect();
        let (mut found,): (Vec<Option<Vec<u8>>>,) =
            self.connection.ask(pipe().cmd("HMGET").arg(keys.job(id)).arg("v").arg(fields)).await?;
        let parts = found.split_off(1);
        Ok((found.pop().flatten().as_deref() == Some(seen.version.as_bytes())).then_some(parts))
    }

    /// A place at the end of the line.
    async fn place(&self, keys: EndpointKeys<'_>) -> Result<u64, StoreError> {
        let (place,): (u64,) = self.connection.ask(pipe().hincr(keys.counters(), "place", 1)).await?;
        Ok(place)
    }

    /// A new job, as the script takes it.
    fn entry(&self, keys: EndpointKeys<'_>, job: &Submission) -> Result<ScriptInvocation<'_>, StoreError> {
        let Submission { record, input, rest } = job;
        let mut enter = self.submit.key(keys.job(&record.id));
        enter.key(keys.line(JobState::InQueue)).key(keys.due()).key(keys.counters()).key(keys::endpoints());
        enter.arg(keys.0).arg(&record.id).arg(version()).arg(beyond(record));
        enter.arg(self.rules.max_waiting.map_or_else(String::new, |most| most.to_string()));
        enter.arg(millis(record.due(&self.rules))).arg(json(record)?).arg(input.get()).arg(json(rest)?);
        enter.arg(keys::events()).arg(json(&[StoreEvent::JobQueued(keys.0.to_owned())])?);
        Ok(enter)
    }

    /// Writes a new job.
    async fn enter(&self, keys: EndpointKeys<'_>, job: &Submission) -> Result<(), StoreError> {
        match self.connection.run(&self.entry(keys, job)?).await? {
            0 => Ok(()),
            1 => Err(StoreError::Duplicate),
            _ => Err(StoreError::QueueFull(self.rules.max_waiting.unwrap_or_default())),
        }
    }
}

impl Store for RedisStore {
    const SHARED: bool = true;

    async fn submit(&self, endpoint: &str, job: Submission) -> Result<(), StoreError> {
        let done = self.enter(EndpointKeys(endpoint), &job).await;
        match &done {
            Ok(()) => self.space_warning.report_space(),
            Err(StoreError::NoSpace(why)) => self.space_warning.report_full(why),
            Err(_) => false,
        };
        done
    }

    async fn read(&self, endpoint: &str, id: &str) -> Result<Option<Record>, StoreError> {
        Ok(self.seen(EndpointKeys(endpoint), id).await?.map(|seen| seen.record))
    }

    /// What is wanted is read after the job, and once more if something happened to it in between.
    async fn find(
        &self,
        endpoint: &str,
        id: &str,
        wanted: impl PayloadSelection,
        most: usize,
    ) -> Result<Option<JobWithPayloads>, StoreError> {
        let keys = EndpointKeys(endpoint);
        loop {
            let (raw, sizes, mut all): (Raw, Vec<usize>, Vec<Option<Vec<u8>>>) =
                self.connection.run(self.find.key(keys.job(id)).arg(most)).await?;
            let Some(seen) = stored_job(raw)? else { return Ok(None) };
            let parts = wanted(&seen.record);
            let bytes = parts.iter().filter_map(|part| sizes.get(*part as usize)).sum();
            if bytes > most {
                return Ok(Some((seen.record.into(), LoadedPayloads::Large(bytes))));
            }
            let found: Option<Vec<Option<Vec<u8>>>> = if all.is_empty() {
                // What is not wanted is large.
                self.parts(keys, id, &seen, &parts).await?
            } else {
                Some(parts.iter().map(|part| all.get_mut(*part as usize).and_then(Option::take)).collect())
            };
            if let Some(found) = found {
                let parts = found.into_iter().map(|part| part.map(Bytes::from)).collect();
                return Ok(Some((seen.record.into(), LoadedPayloads::Read(parts))));
            }
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
        let keys = EndpointKeys(endpoint);
        // Whoever was faster has done something; so all of them together get on.
        loop {
            let Some(seen) = self.seen(keys, id).await? else { return Ok(None) };
            let mut after = seen.record.clone();
            let transition = event(&mut after);
            if transition == Transition::Unchanged {
                return Ok(Some((seen.record, transition)));
            }
            let effects = effects(endpoint, &seen.record, &after, &transition);
            let place = if effects.to_back { Some(self.place(keys).await?) } else { None };
            let (parts, chunk) = (&parts[..], chunk.as_ref());
            let change = JobChange { after: &after, transition: &transition, effects: &effects, place, parts, chunk };
            let write = JobWrite::change(keys, &self.rules, &seen, &change)?;
            if self.connection.run(&write.by(&self.write)).await? {
                return Ok(Some((after, transition)));
            }
        }
    }

    async fn take(&self, endpoint: &str, request: ClaimRequest) -> Result<TakenJobs, StoreError> {
        self.hand_out(EndpointKeys(endpoint), &request).await
    }

    async fn held_by(&self, endpoint: &str, worker: &str) -> Result<Vec<String>, StoreError> {
        let (mut ids,): (Vec<String>,) =
            self.connection.ask(pipe().smembers(EndpointKeys(endpoint).held(worker))).await?;
        ids.sort();
        Ok(ids)
    }

    async fn ids_in_state(&self, endpoint: &str, state: JobState) -> Result<Vec<String>, StoreError> {
        let (ids,): (Vec<String>,) =
            self.connection.ask(pipe().zrange(EndpointKeys(endpoint).line(state), 0, -1)).await?;
        Ok(ids)
    }

    async fn page(&self, endpoint: &str, query: PageQuery) -> Result<JobPage, StoreError> {
        self.read_page(EndpointKeys(endpoint), &query).await
    }

    async fn next_submitted(&self, endpoint: &str) -> Result<Option<UnixTime>, StoreError> {
        let next = PageQuery { states: vec![JobState::InQueue], offset: 0, limit: 1 };
        let page = self.read_page(EndpointKeys(endpoint), &next).await?;
        Ok(page.jobs.first().map(|record| record.submitted))
    }

    async fn busy_workers(&self, endpoint: &str, workers: Vec<String>) -> Result<BTreeSet<String>, StoreError> {
        self.who_holds_jobs(EndpointKeys(endpoint), workers).await
    }

    async fn due(&self, now: UnixTime, most: usize) -> Result<Vec<(String, String)>, StoreError> {
        let limit = isize::try_from(most).unwrap_or(-1);
        let timers = self.timers(&millis(now).to_string(), limit).await?;
        Ok(timers.into_iter().take(most).map(|(_, endpoint, id)| (endpoint, id)).collect())
    }

    async fn next_due(&self) -> Result<Option<UnixTime>, StoreError> {
        let timers = self.timers("+inf", 1).await?;
        Ok(timers.first().map(|(due, ..)| UnixTime::from_millis(*due)))
    }

    async fn take_chunks(&self, endpoint: &str, id: &str, most: usize) -> Result<TakenChunks, StoreError> {
        let mut drain = self.drain.key(EndpointKeys(endpoint).chunks(id));
        let (chunks, next): (Vec<Vec<u8>>, Option<usize>) = self.connection.run(drain.arg(most)).await?;
        Ok((chunks.into_iter().map(Bytes::from).collect(), next))
    }

    async fn take_stops(&self, endpoint: &str, worker: &str) -> Result<Vec<String>, StoreError> {
        let key = EndpointKeys(endpoint).stops(worker);
        let mut ask = pipe();
        ask.atomic().lrange(&key, 0, -1).del(&key).ignore();
        let (ids,): (Vec<String>,) = self.connection.ask(&ask).await?;
        Ok(ids)
    }

    async fn counts(&self, endpoint: &str) -> Result<Counts, StoreError> {
        self.count_jobs(EndpointKeys(endpoint)).await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.connection.run(&self.ready.key(keys::nothing())).await
    }

    async fn sync_clock(&self, on: Option<UnixTime>, wall: UnixTime) -> Result<UnixTime, StoreError> {
        let mut keep = self.time.key(keys::time());
        keep.arg(on.map_or_else(String::new, |on| millis(on).to_string())).arg(millis(wall));
        self.connection.run(&keep).await.map(UnixTime::from_millis)
    }

    async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        let (texts,): (Vec<String>,) = self.connection.ask(pipe().hvals(keys::opening())).await?;
        let read: Result<Vec<KeyRecord>, _> = texts.iter().map(|text| serde_json::from_str(text)).collect();
        let mut found = read.map_err(|error| StoreError::Failed(format!("a key cannot be read: {error}")))?;
        found.sort_by(|one: &KeyRecord, other| one.name.cmp(&other.name));
        Ok(found)
    }

    async fn add_key(&self, key: KeyRecord) -> Result<(), StoreError> {
        let (new,): (bool,) = self.connection.ask(pipe().hset_nx(keys::opening(), &key.name, json(&key)?)).await?;
        if new { Ok(()) } else { Err(StoreError::Duplicate) }
    }

    async fn remove_key(&self, name: &str) -> Result<bool, StoreError> {
        let (removed,): (u64,) = self.connection.ask(pipe().hdel(keys::opening(), name)).await?;
        Ok(removed > 0)
    }

    async fn admit(&self, asking: RateCheck) -> Result<Admission, StoreError> {
        self.count(&asking).await
    }

    async fn report_open(&self, gateway: &str, open: Vec<([u8; 32], u64)>, silent: Duration) -> Result<(), StoreError> {
        self.say(gateway, &open, silent).await
    }

    async fn publish_view(&self, endpoint: &str, view: WorkerView, urgent: bool) -> Result<(), StoreError> {
        self.write_view(endpoint, &view, urgent).await
    }

    async fn worker_views(&self, endpoint: &str) -> Result<Vec<WorkerView>, StoreError> {
        let (views,): (Vec<(String, String)>,) =
            self.connection.ask(pipe().hgetall(EndpointKeys(endpoint).views())).await?;
        Ok(views.into_iter().filter_map(records::view).collect())
    }

    fn subscribe(&self) -> Subscription {
        self.sender.subscribe()
    }
}
