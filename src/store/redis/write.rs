//! What is to be written of a job, as commands for a script that runs them only if no other was faster.

use bytes::Bytes;
use redis::{Script, ScriptInvocation};
use uuid::Uuid;

use crate::date::UnixTime;
use crate::queue::{Record, Rules, Transition};

use super::super::effects::Effects;
use super::super::events::StoreEvent;
use super::super::{PayloadKind, StoreError, json};
use super::keys::{self, EndpointKeys};

/// Jobs of low priority are behind all others: no line was ever so long.
const LOW_PRIORITY_OFFSET: u64 = 1 << 52;

/// Of a job that is handed out: who has it since when, in JSON.
pub(super) const CLAIM_FIELD: &str = "t";

/// How long a worker may take to ask what it works on in vain.
const STOP_SECONDS: &str = "86400";

/// A job as it was read.
#[derive(Debug)]
pub(super) struct StoredJob {
    pub(super) version: String,
    /// Where it is in lines.
    pub(super) score: u64,
    /// As it stands, its claim included.
    pub(super) record: Record,
    /// Whether there is a claim beside the record.
    pub(super) taken: bool,
}

/// Of a job that changes, what is kept and what follows.
#[derive(Debug)]
pub(super) struct JobChange<'a> {
    pub(super) after: &'a Record,
    pub(super) transition: &'a Transition,
    pub(super) effects: &'a Effects,
    /// Its new place in line, if it gets one.
    pub(super) place: Option<u64>,
    pub(super) parts: &'a [(PayloadKind, Bytes)],
    pub(super) chunk: Option<&'a Bytes>,
}

/// What becomes of one job.
#[derive(Debug)]
pub(super) struct JobWrite<'a> {
    keys: EndpointKeys<'a>,
    rules: &'a Rules,
    key: String,
    seen: String,
    version: String,
    commands: Vec<Vec<Bytes>>,
}

/// Words of a command.
macro_rules! words {
    ($($word:expr),* $(,)?) => { vec![$(Bytes::copy_from_slice($word.as_ref())),*] };
}

impl<'a> JobWrite<'a> {
    /// What an event has made of a job.
    pub(super) fn change(
        keys: EndpointKeys<'a>,
        rules: &'a Rules,
        seen: &StoredJob,
        change: &JobChange<'_>,
    ) -> Result<Self, StoreError> {
        let JobChange { after, transition, effects, place, parts, chunk } = change;
        let (id, chunks, version) = (&*after.id, keys.chunks(&after.id), version());
        let mut write =
            Self { keys, rules, key: keys.job(id), seen: seen.version.clone(), version, commands: Vec::new() };
        let score = place.map_or(seen.score, |place| score(after, place));
        let before = Some((&seen.record, seen.score));
        if after.is_disposable() {
            write.commands.push(words!["DEL", write.key, chunks]);
            write.index(before, None);
        } else {
            write.record(after, score)?;
            if seen.taken {
                write.commands.push(words!["HDEL", write.key, CLAIM_FIELD]);
            }
            for part in effects.stale {
                write.commands.push(words!["HDEL", write.key, (*part as u8).to_string()]);
            }
            if effects.clear_stream {
                write.commands.push(words!["DEL", chunks]);
            }
            for (part, body) in *parts {
                write.part(*part, body);
            }
            if let Some(chunk) = chunk {
                write.commands.push(words!["RPUSH", chunks, chunk]);
            }
            write.index(before, Some((after, score)));
        }
        for tally in &effects.tallies {
            write.commands.push(words!["HINCRBY", keys.counters(), tally.name(), "1"]);
        }
        if let Transition::Stop(worker) = transition {
            write.commands.push(words!["RPUSH", keys.stops(worker), id]);
            write.commands.push(words!["EXPIRE", keys.stops(worker), STOP_SECONDS]);
        }
        write.publish(&effects.events)?;
        Ok(write)
    }

    fn record(&mut self, record: &Record, score: u64) -> Result<(), StoreError> {
        let words = words!["HSET", self.key, "v", self.version, "s", score.to_string(), "r", json(record)?];
        self.commands.push(words);
        Ok(())
    }

    fn part(&mut self, part: PayloadKind, body: &[u8]) {
        self.commands.push(words!["HSET", self.key, (part as u8).to_string(), body]);
    }

    /// Moves a job to where it is found, from where it was.
    fn index(&mut self, before: Option<(&Record, u64)>, after: Option<(&Record, u64)>) {
        let keys = self.keys;
        let Some(id) = after.or(before).map(|(record, _)| record.id.clone()) else { return };
        let line = |of: Option<(&Record, u64)>| {
            of.filter(|(record, _)| !record.hidden).map(|(record, score)| (keys.line(record.state), score.to_string()))
        };
        let holder =
            |of: Option<(&Record, u64)>| of.and_then(|(record, _)| record.holder()).map(|worker| keys.held(worker));
        let due = |of: Option<(&Record, u64)>| of.map(|(record, _)| millis(record.due(self.rules)).to_string());
        let (was, is) = (line(before), line(after));
        let mut commands = Vec::new();
        if was != is {
            commands.extend(was.map(|(key, _)| words!["ZREM", key, id]));
            commands.extend(is.map(|(key, score)| words!["ZADD", key, score, id]));
        }
        let (was, is) = (holder(before), holder(after));
        if was != is {
            commands.extend(was.map(|key| words!["SREM", key, id]));
            commands.extend(is.map(|key| words!["SADD", key, id]));
        }
        match (due(before), due(after)) {
            (was, Some(is)) if was.as_ref() != Some(&is) => commands.push(words!["ZADD", keys.due(), is, id]),
            (Some(_), None) => commands.push(words!["ZREM", keys.due(), id]),
            _ => {}
        }
        self.commands.extend(commands);
    }

    fn publish(&mut self, events: &[StoreEvent]) -> Result<(), StoreError> {
        self.commands.push(words!["PUBLISH", keys::events(), json(&events)?]);
        Ok(())
    }

    /// As the script takes it.
    pub(super) fn by<'s>(&self, script: &'s Script) -> ScriptInvocation<'s> {
        let mut invocation = script.key(&self.key);
        invocation.arg(&self.seen).arg(&self.version);
        for command in &self.commands {
            invocation.arg(command.len());
            for word in command {
                invocation.arg(&word[..]);
            }
        }
        invocation
    }
}

/// A version that no job ever had.
pub(super) fn version() -> String {
    Uuid::new_v4().simple().to_string()
}

fn score(record: &Record, place: u64) -> u64 {
    place + beyond(record)
}

/// What the place of a job in line counts beyond its number.
pub(super) const fn beyond(record: &Record) -> u64 {
    if record.low_priority { LOW_PRIORITY_OFFSET } else { 0 }
}

/// As sorted sets have it: a number with 53 bits.
pub(super) fn millis(date: UnixTime) -> u64 {
    date.as_millis().min((1 << 53) - 1)
}
