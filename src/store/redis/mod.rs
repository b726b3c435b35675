//! Jobs in a Redis: the store of several gateways.
//!
//! The laws of a job are Rust, and Redis cannot run them. So a gateway reads a job with its version, works out what an event makes of it,
//! and has a script write that at one stroke if the version is still the same; else it begins anew with what another gateway has made
//! of the job. Versions are never the same twice, so that a gateway that got no answer can ask again and see that it was heard.
//!
//! When the memory of Redis is full, a job is refused; what happens to jobs that are there is written all the same.

mod keys;
mod link;
mod meter;
mod write;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::{Script, pipe};

use crate::date::UnixTime;
use crate::queue::{Record, Rules, State, Submission, Turn};

use super::change::{Counts, Tally, outcome};
use super::news::{Subscription, Teller};
use super::room::Told;
use super::share::{Admitted, Asking, View};
use super::{Event, Found, Handed, KeyRecord, Part, Store, StoreError, Taker, Wanted};
use keys::Keys;
use link::Link;
use write::{Change, Seen, Write, invocation, millis, tally_name};

/// The version of what is kept.
const FORMAT: u32 = 1;

/// Jobs that are looked at beyond those that are wanted: others take from the head of the line at the same time.
const SPARE: usize = 8;

/// A job as it is read: version, score, record. All are missing if it is not there.
type Raw = (Option<String>, Option<u64>, Option<String>);

/// Jobs in a Redis.
#[derive(Debug)]
pub struct RedisStore {
    link: Link,
    rules: Rules,
    teller: Arc<Teller>,
    told: Told,
    submit: Script,
    write: Script,
    peek: Script,
    drain: Script,
    meter: Script,
    open: Script,
}

impl RedisStore {
    /// Connects to `redis://[user:password@]host[:port][/database]`; `rediss` is with TLS.
    ///
    /// # Errors
    /// There is none, it is too old, or it has jobs of a newer latentd. No error has the password in it.
    pub async fn open(url: &str, rules: Rules) -> Result<Self, StoreError> {
        let teller = Arc::new(Teller::new());
        let link = Link::open(url, teller.clone()).await?;
        let (format,): (Option<u32>,) = link.ask(pipe().get(keys::format())).await?;
        match format {
            None => link.ask(pipe().set_nx(keys::format(), FORMAT).ignore()).await?,
            Some(format) if format > FORMAT => {
                let why = format!("its jobs are of a newer latentd (version {format}, this one knows {FORMAT})");
                return Err(StoreError::Failed(why));
            }
            Some(_) => {}
        }
        // The flags say what may run when the memory is full.
        let script = |flags: &str, text: &str| Script::new(&format!("#!lua{flags}\n{text}"));
        Ok(Self {
            link,
            rules,
            teller,
            told: Told::default(),
            submit: script("", include_str!("write.lua")),
            write: script(" flags=allow-oom", include_str!("write.lua")),
            peek: script(" flags=no-writes", include_str!("peek.lua")),
            drain: script(" flags=allow-oom", include_str!("drain.lua")),
            meter: script(" flags=allow-oom", include_str!("meter.lua")),
            open: script(" flags=allow-oom", include_str!("open.lua")),
        })
    }

    async fn seen(&self, keys: Keys<'_>, id: &str) -> Result<Option<Seen>, StoreError> {
        let (raw,): (Raw,) = self.link.ask(pipe().cmd("HMGET").arg(keys.job(id)).arg(&["v", "s", "r"])).await?;
        seen(raw)
    }

    /// Jobs in line, from the head, places `from` and after.
    async fn line(&self, keys: Keys<'_>, from: usize, most: usize) -> Result<Vec<Option<Seen>>, StoreError> {
        let mut peek = self.peek.key(keys.line(State::InQueue));
        peek.arg(keys.jobs()).arg(from).arg(from + most - 1);
        let raw: Vec<Raw> = self.link.run(&peek).await?;
        raw.into_iter().map(seen).collect()
    }

    /// A place at the end of the line.
    async fn place(&self, keys: Keys<'_>) -> Result<u64, StoreError> {
        let (place,): (u64,) = self.link.ask(pipe().hincr(keys.counters(), "place", 1)).await?;
        Ok(place)
    }

    /// Writes a new job.
    async fn enter(&self, keys: Keys<'_>, job: &Submission) -> Result<(), StoreError> {
        let mut ask = pipe();
        ask.sadd(keys::endpoints(), keys.0).ignore().hincr(keys.counters(), "place", 1);
        ask.zcard(keys.line(State::InQueue)).exists(keys.job(&job.record.id));
        let (place, waiting, taken): (u64, u64, bool) = self.link.ask(&ask).await?;
        if let Some(most) = self.rules.waiting.filter(|most| waiting >= *most && !taken) {
            return Err(StoreError::Crowded(most));
        }
        let write = Write::submit(keys, &self.rules, job, place)?;
        let done: Vec<(usize, u64)> = self.link.run(&invocation(&self.submit, keys, 1, &[write])).await?;
        if done.is_empty() { Err(StoreError::Taken) } else { Ok(()) }
    }

    /// Has up to `most` jobs handed out, each as it was and as it became. Returns those that nobody else was given before.
    async fn hand_out(
        &self,
        keys: Keys<'_>,
        started: Vec<(Seen, Record, Turn)>,
        most: usize,
    ) -> Result<Vec<Handed>, StoreError> {
        type Parts = (Option<Vec<u8>>, Option<Vec<u8>>);
        let writes = started.iter().map(|(seen, after, turn)| {
            let outcome = outcome(keys.0, &seen.record, after, turn);
            let change = Change { after, turn, outcome: &outcome, place: None, parts: &[], chunk: None };
            Ok(Write::change(keys, &self.rules, seen, &change)?.and_hand_out())
        });
        let writes = writes.collect::<Result<Vec<_>, StoreError>>()?;
        let done: Vec<(usize, Parts)> = self.link.run(&invocation(&self.write, keys, most, &writes)).await?;
        let mut records: Vec<_> = started.into_iter().map(|(_, after, _)| Some(after)).collect();
        let handed = done.into_iter().filter_map(|(number, (input, rest))| {
            let record = records.get_mut(number)?.take()?;
            Some(Handed { record, input: input.unwrap_or_default().into(), rest: rest.unwrap_or_default().into() })
        });
        Ok(handed.collect())
    }

    async fn endpoints(&self) -> Result<Vec<String>, StoreError> {
        let (endpoints,): (Vec<String>,) = self.link.ask(pipe().smembers(keys::endpoints())).await?;
        Ok(endpoints)
    }

    /// The jobs of each endpoint that time does something to, the most overdue first.
    async fn timers(&self, until: &str, most: isize) -> Result<Vec<(u64, String, String)>, StoreError> {
        let endpoints = self.endpoints().await?;
        if endpoints.is_empty() {
            return Ok(Vec::new());
        }
        let mut ask = pipe();
        for endpoint in &endpoints {
            ask.zrangebyscore_limit_withscores(Keys(endpoint).due(), "-inf", until, 0, most);
        }
        let found: Vec<Vec<(String, f64)>> = self.link.ask(&ask).await?;
        let found = endpoints.into_iter().zip(found);
        let timers = found
            .flat_map(|(endpoint, found)| found.into_iter().map(move |(id, due)| (due as u64, endpoint.clone(), id)));
        let mut timers: Vec<_> = timers.collect();
        timers.sort();
        Ok(timers)
    }
}

impl Store for RedisStore {
    const SHARED: bool = true;

    async fn submit(&self, endpoint: &str, job: Submission) -> Result<(), StoreError> {
        let done = self.enter(Keys(endpoint), &job).await;
        match &done {
            Ok(()) => self.told.has(),
            Err(StoreError::Full(why)) => self.told.lacks(why),
            Err(_) => false,
        };
        done
    }

    async fn read(&self, endpoint: &str, id: &str) -> Result<Option<Record>, StoreError> {
        Ok(self.seen(Keys(endpoint), id).await?.map(|seen| seen.record))
    }

    /// What is wanted is read after the job, and once more if something happened to it in between.
    async fn find(&self, endpoint: &str, id: &str, wanted: impl Wanted) -> Result<Option<Found>, StoreError> {
        let keys = Keys(endpoint);
        while let Some(seen) = self.seen(keys, id).await? {
            let parts = wanted(&seen.record);
            if parts.is_empty() {
                return Ok(Some((seen.record, Vec::new())));
            }
            let mut ask = pipe();
            // Bytes would be one text.
            let fields: Vec<u32> = parts.iter().map(|part| *part as u32).collect();
            ask.cmd("HMGET").arg(keys.job(id)).arg("v").arg(fields);
            let (mut found,): (Vec<Option<Vec<u8>>>,) = self.link.ask(&ask).await?;
            let parts = found.split_off(1);
            let version = found.pop().flatten();
            if version.as_deref() == Some(seen.version.as_bytes()) {
                return Ok(Some((seen.record, parts.into_iter().map(|part| part.map(Bytes::from)).collect())));
            }
        }
        Ok(None)
    }

    async fn change(
        &self,
        endpoint: &str,
        id: &str,
        event: impl Event,
        parts: Vec<(Part, Bytes)>,
        chunk: Option<Bytes>,
    ) -> Result<Option<(Record, Turn)>, StoreError> {
        let keys = Keys(endpoint);
        // Whoever was faster has done something; so all of them together get on.
        loop {
            let Some(seen) = self.seen(keys, id).await? else { return Ok(None) };
            let mut after = seen.record.clone();
            let turn = event(&mut after);
            if turn == Turn::Nothing {
                return Ok(Some((seen.record, turn)));
            }
            let outcome = outcome(endpoint, &seen.record, &after, &turn);
            let place = if outcome.last { Some(self.place(keys).await?) } else { None };
            let (parts, chunk) = (&parts[..], chunk.as_ref());
            let change = Change { after: &after, turn: &turn, outcome: &outcome, place, parts, chunk };
            let write = Write::change(keys, &self.rules, &seen, &change)?;
            let done: Vec<(usize, u64)> = self.link.run(&invocation(&self.write, keys, 1, &[write])).await?;
            if !done.is_empty() {
                return Ok(Some((after, turn)));
            }
        }
    }

    async fn take(&self, endpoint: &str, taker: Taker) -> Result<Vec<Handed>, StoreError> {
        let keys = Keys(endpoint);
        let (mut handed, mut from) = (Vec::new(), 0);
        while handed.len() < taker.most {
            let wanted = taker.most - handed.len();
            let line = self.line(keys, from, wanted + SPARE).await?;
            if line.is_empty() {
                break;
            }
            let looked_at = line.len();
            let started = line.into_iter().flatten().filter_map(|seen| {
                let mut after = seen.record.clone();
                let turn = after.start(&taker.worker, taker.gpu.as_deref(), taker.now);
                (turn != Turn::Nothing).then_some((seen, after, turn))
            });
            let started: Vec<_> = started.collect();
            // Those that have expired stay until they are forgotten; behind them others may wait.
            from += if started.is_empty() { looked_at } else { 0 };
            if !started.is_empty() {
                match self.hand_out(keys, started, wanted).await {
                    Ok(more) => handed.extend(more),
                    Err(error) if handed.is_empty() => return Err(error),
                    // What was handed out goes to its worker.
                    Err(_) => break,
                }
            }
        }
        Ok(handed)
    }

    async fn held(&self, endpoint: &str, worker: &str) -> Result<Vec<String>, StoreError> {
        let (mut ids,): (Vec<String>,) = self.link.ask(pipe().smembers(Keys(endpoint).held(worker))).await?;
        ids.sort();
        Ok(ids)
    }

    async fn all(&self, endpoint: &str, state: State) -> Result<Vec<String>, StoreError> {
        let (ids,): (Vec<String>,) = self.link.ask(pipe().zrange(Keys(endpoint).line(state), 0, -1)).await?;
        Ok(ids)
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

    async fn drain(&self, endpoint: &str, id: &str, most: usize) -> Result<(Vec<Bytes>, bool), StoreError> {
        let mut drain = self.drain.key(Keys(endpoint).chunks(id));
        let (chunks, more): (Vec<Vec<u8>>, bool) = self.link.run(drain.arg(most)).await?;
        Ok((chunks.into_iter().map(Bytes::from).collect(), more))
    }

    async fn stops(&self, endpoint: &str, worker: &str) -> Result<Vec<String>, StoreError> {
        let key = Keys(endpoint).stops(worker);
        let mut ask = pipe();
        ask.atomic().lrange(&key, 0, -1).del(&key).ignore();
        let (ids,): (Vec<String>,) = self.link.ask(&ask).await?;
        Ok(ids)
    }

    async fn counts(&self, endpoint: &str) -> Result<Counts, StoreError> {
        type Ever = (Option<u64>, Option<u64>, Option<u64>);
        let keys = Keys(endpoint);
        let tallies = [Tally::Completed, Tally::Failed, Tally::Retried].map(tally_name);
        let mut ask = pipe();
        ask.zcard(keys.line(State::InQueue)).zcard(keys.line(State::InProgress));
        ask.cmd("HMGET").arg(keys.counters()).arg(&tallies);
        let (in_queue, in_progress, (completed, failed, retried)): (u64, u64, Ever) = self.link.ask(&ask).await?;
        let ever = |count: Option<u64>| count.unwrap_or(0);
        Ok(Counts { in_queue, in_progress, completed: ever(completed), failed: ever(failed), retried: ever(retried) })
    }

    async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        let (texts,): (Vec<String>,) = self.link.ask(pipe().hvals(keys::opening())).await?;
        let read: Result<Vec<KeyRecord>, _> = texts.iter().map(|text| serde_json::from_str(text)).collect();
        let mut found = read.map_err(|error| StoreError::Failed(format!("a key cannot be read: {error}")))?;
        found.sort_by(|one: &KeyRecord, other| one.name.cmp(&other.name));
        Ok(found)
    }

    async fn add_key(&self, key: KeyRecord) -> Result<(), StoreError> {
        let text = serde_json::to_string(&key).map_err(|error| StoreError::Failed(error.to_string()))?;
        let (new,): (bool,) = self.link.ask(pipe().hset_nx(keys::opening(), &key.name, text)).await?;
        if new { Ok(()) } else { Err(StoreError::Taken) }
    }

    async fn remove_key(&self, name: &str) -> Result<bool, StoreError> {
        let (removed,): (u64,) = self.link.ask(pipe().hdel(keys::opening(), name)).await?;
        Ok(removed > 0)
    }

    async fn admit(&self, asking: Asking) -> Result<Admitted, StoreError> {
        self.count(&asking).await
    }

    async fn say_open(&self, gateway: &str, open: Vec<([u8; 32], u64)>, silent: Duration) -> Result<(), StoreError> {
        self.say(gateway, &open, silent).await
    }

    async fn show(&self, endpoint: &str, view: View, urgent: bool) -> Result<(), StoreError> {
        self.write_view(endpoint, &view, urgent).await
    }

    async fn views(&self, endpoint: &str) -> Result<Vec<View>, StoreError> {
        let (views,): (Vec<(String, String)>,) = self.link.ask(pipe().hgetall(Keys(endpoint).views())).await?;
        Ok(views.into_iter().filter_map(meter::view).collect())
    }

    fn news(&self) -> Subscription {
        self.teller.subscribe()
    }
}

/// What is there of a job, read.
fn seen((version, score, record): Raw) -> Result<Option<Seen>, StoreError> {
    let (Some(version), Some(score), Some(record)) = (version, score, record) else { return Ok(None) };
    let record = serde_json::from_str(&record);
    let record = record.map_err(|error| StoreError::Failed(format!("what it has of a job cannot be read: {error}")))?;
    Ok(Some(Seen { version, score, record }))
}
