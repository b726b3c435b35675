//! A store that forgets with its process: for tests, which take it for the truth, and for trying things out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::date::UnixTime;
use crate::queue::{JobState, Record, Rules, Submission, Transition};

use super::clock::ClockReading;
use super::effects::{Tally, effects};
use super::events::{EventSender, StoreEvent, Subscription};
use super::page::{JobPage, PageQuery};
use super::{
    ClaimRequest, ClaimedJob, Counts, JobEvent, JobWithPayloads, KeyRecord, LoadedPayloads, PayloadKind,
    PayloadSelection, Store, StoreError, TakenChunks, TakenJobs, json,
};

/// Jobs in memory.
#[derive(Debug)]
pub struct MemoryStore {
    rules: Rules,
    endpoints: Mutex<BTreeMap<String, EndpointJobs>>,
    keys: Mutex<BTreeMap<String, KeyRecord>>,
    time: Mutex<Option<ClockReading>>,
    sender: EventSender,
}

#[derive(Debug, Default)]
struct EndpointJobs {
    jobs: BTreeMap<String, StoredJob>,
    stops: BTreeMap<String, Vec<String>>,
    counts: Counts,
    /// The place of who comes next.
    place: u64,
}

#[derive(Debug)]
struct StoredJob {
    record: Record,
    /// Its place in line.
    place: u64,
    parts: BTreeMap<PayloadKind, Bytes>,
    chunks: VecDeque<Bytes>,
}

impl MemoryStore {
    /// An empty one.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            endpoints: Mutex::default(),
            keys: Mutex::default(),
            time: Mutex::default(),
            sender: EventSender::new(),
        }
    }

    fn all_endpoints(&self) -> MutexGuard<'_, BTreeMap<String, EndpointJobs>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all_keys(&self) -> MutexGuard<'_, BTreeMap<String, KeyRecord>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at<T>(&self, endpoint: &str, work: impl FnOnce(&mut EndpointJobs) -> T) -> T {
        work(self.all_endpoints().entry(endpoint.to_owned()).or_default())
    }
}

impl EndpointJobs {
    fn next_place(&mut self) -> u64 {
        self.place += 1;
        self.place
    }

    /// Lets an event happen, and what follows from it.
    fn change(
        &mut self,
        endpoint: &str,
        id: &str,
        event: impl FnOnce(&mut Record) -> Transition,
    ) -> Option<(Record, Transition, Vec<StoreEvent>)> {
        let last = self.place + 1;
        let job = self.jobs.get_mut(id)?;
        let before = job.record.clone();
        let transition = event(&mut job.record);
        if transition == Transition::Unchanged {
            return Some((before, transition, Vec::new()));
        }
        let after = job.record.clone();
        let effects = effects(endpoint, &before, &after, &transition);
        job.parts.retain(|part, _| !effects.stale.contains(part));
        if effects.clear_stream {
            job.chunks.clear();
        }
        if effects.to_back {
            (job.place, self.place) = (last, last);
        }
        for tally in effects.tallies {
            match tally {
                Tally::Completed => self.counts.completed += 1,
                Tally::Failed => self.counts.failed += 1,
                Tally::Retried => self.counts.retried += 1,
            }
        }
        if let Transition::Stop(worker) = &transition {
            self.stops.entry(worker.clone()).or_default().push(id.to_owned());
        }
        if after.is_disposable() {
            self.jobs.remove(id);
        }
        Some((after, transition, effects.events))
    }

    fn standing(&self, state: JobState) -> impl Iterator<Item = &StoredJob> {
        self.jobs.values().filter(move |job| job.record.state == state && !job.record.hidden)
    }

    /// Ids of jobs that stand so, in line.
    fn line(&self, state: JobState) -> Vec<String> {
        let mut line: Vec<_> = self.standing(state).collect();
        line.sort_by_key(|job| (job.record.low_priority, job.place));
        line.into_iter().map(|job| job.record.id.clone()).collect()
    }
}

impl Store for MemoryStore {
    async fn submit(&self, endpoint: &str, job: Submission) -> Result<(), StoreError> {
        let Submission { record, input, rest } = job;
        self.at(endpoint, |jobs| {
            if jobs.jobs.contains_key(&record.id) {
                return Err(StoreError::Duplicate);
            }
            if let Some(most) =
                self.rules.max_waiting.filter(|most| jobs.standing(JobState::InQueue).count() as u64 >= *most)
            {
                return Err(StoreError::QueueFull(most));
            }
            let place = jobs.next_place();
            let rest = json(&rest)?;
            let input = Bytes::from(String::from(Box::<str>::from(input)));
            let parts = BTreeMap::from([(PayloadKind::Input, input), (PayloadKind::Rest, rest.into())]);
            jobs.jobs.insert(record.id.clone(), StoredJob { record, place, parts, chunks: VecDeque::new() });
            Ok(())
        })?;
        self.sender.publish([StoreEvent::JobQueued(endpoint.to_owned())]);
        Ok(())
    }

    async fn read(&self, endpoint: &str, id: &str) -> Result<Option<Record>, StoreError> {
        Ok(self.at(endpoint, |jobs| jobs.jobs.get(id).map(|job| job.record.clone())))
    }

    async fn find(
        &self,
        endpoint: &str,
        id: &str,
        wanted: impl PayloadSelection,
        most: usize,
    ) -> Result<Option<JobWithPayloads>, StoreError> {
        Ok(self.at(endpoint, |jobs| {
            let job = jobs.jobs.get(id)?;
            let parts = wanted(&job.record).iter().map(|part| job.parts.get(part).cloned()).collect();
            Some((job.record.clone().into(), LoadedPayloads::of(parts, most)))
        }))
    }

    async fn change(
        &self,
        endpoint: &str,
        id: &str,
        event: impl JobEvent,
        parts: Vec<(PayloadKind, Bytes)>,
        chunk: Option<Bytes>,
    ) -> Result<Option<(Record, Transition)>, StoreError> {
        let changed = self.at(endpoint, |jobs| {
            let changed = jobs.change(endpoint, id, event);
            if let (Some((_, transition, _)), Some(job)) = (&changed, jobs.jobs.get_mut(id))
                && *transition != Transition::Unchanged
            {
                job.parts.extend(parts);
                job.chunks.extend(chunk);
            }
            changed
        });
        Ok(changed.map(|(record, transition, events)| {
            self.sender.publish(events);
            (record, transition)
        }))
    }

    async fn take(&self, endpoint: &str, request: ClaimRequest) -> Result<TakenJobs, StoreError> {
        let mut all_events = Vec::new();
        let handed = self.at(endpoint, |jobs| {
            let (mut handed, mut large, mut left) = (Vec::new(), None, request.max_bytes);
            for id in jobs.line(JobState::InQueue) {
                if handed.len() == request.max_jobs {
                    break;
                }
                // One that has expired waits only to be forgotten.
                let waits = |job: &&StoredJob| job.record.expires > request.claim.at;
                let Some(job) = jobs.jobs.get(&id).filter(waits) else { continue };
                let part = |part| job.parts.get(&part).cloned().unwrap_or_default();
                let (input, rest) = (part(PayloadKind::Input), part(PayloadKind::Rest));
                let bytes = input.len() + rest.len();
                if bytes > left {
                    large = handed.is_empty().then_some(bytes);
                    break;
                }
                left -= bytes;
                let start = |record: &mut Record| record.start(&request.claim);
                let Some((record, Transition::Changed, events)) = jobs.change(endpoint, &id, start) else { continue };
                all_events.extend(events);
                handed.push(ClaimedJob { record, input, rest });
            }
            (handed, large)
        });
        self.sender.publish(all_events);
        Ok(handed)
    }

    async fn held_by(&self, endpoint: &str, worker: &str) -> Result<Vec<String>, StoreError> {
        Ok(self.at(endpoint, |jobs| {
            let held = jobs.jobs.values().filter(|job| job.record.holder() == Some(worker));
            held.map(|job| job.record.id.clone()).collect()
        }))
    }

    async fn ids_in_state(&self, endpoint: &str, state: JobState) -> Result<Vec<String>, StoreError> {
        Ok(self.at(endpoint, |jobs| jobs.line(state)))
    }

    async fn page(&self, endpoint: &str, query: PageQuery) -> Result<JobPage, StoreError> {
        Ok(self.at(endpoint, |jobs| {
            let lines = query.states.iter().map(|state| jobs.line(*state));
            let (counts, lines): (Vec<_>, BTreeMap<_, _>) =
                lines.zip(&query.states).map(|(line, state)| (line.len(), (*state as u8, line))).unzip();
            let ids = query
                .slices(&counts)
                .into_iter()
                .flat_map(|slice| lines[&(slice.state as u8)].iter().skip(slice.offset).take(slice.limit));
            let found = ids.filter_map(|id| Some(jobs.jobs.get(id)?.record.clone())).collect();
            JobPage { jobs: found, total: counts.iter().sum() }
        }))
    }

    async fn next_submitted(&self, endpoint: &str) -> Result<Option<UnixTime>, StoreError> {
        let next = |jobs: &mut EndpointJobs| {
            let next = jobs.standing(JobState::InQueue).min_by_key(|job| (job.record.low_priority, job.place));
            next.map(|job| job.record.submitted)
        };
        Ok(self.at(endpoint, next))
    }

    async fn busy_workers(&self, endpoint: &str, workers: Vec<String>) -> Result<BTreeSet<String>, StoreError> {
        Ok(self.at(endpoint, |jobs| {
            let holders: BTreeSet<_> = jobs.jobs.values().filter_map(|job| job.record.holder()).collect();
            workers.into_iter().filter(|worker| holders.contains(&**worker)).collect()
        }))
    }

    async fn due(&self, now: UnixTime, most: usize) -> Result<Vec<(String, String)>, StoreError> {
        let all = self.all_endpoints();
        let jobs = all.iter().flat_map(|(endpoint, jobs)| jobs.jobs.values().map(move |job| (endpoint, &job.record)));
        let mut due: Vec<_> = jobs.map(|(endpoint, record)| (record.due(&self.rules), endpoint, &record.id)).collect();
        due.retain(|(due, ..)| *due <= now);
        due.sort();
        Ok(due.into_iter().take(most).map(|(_, endpoint, id)| (endpoint.clone(), id.clone())).collect())
    }

    async fn next_due(&self) -> Result<Option<UnixTime>, StoreError> {
        let all = self.all_endpoints();
        Ok(all.values().flat_map(|jobs| jobs.jobs.values()).map(|job| job.record.due(&self.rules)).min())
    }

    async fn take_chunks(&self, endpoint: &str, id: &str, most: usize) -> Result<TakenChunks, StoreError> {
        Ok(self.at(endpoint, |jobs| {
            let Some(job) = jobs.jobs.get_mut(id) else { return (Vec::new(), None) };
            let (mut drained, mut bytes) = (Vec::new(), 0);
            while let Some(chunk) = job.chunks.front() {
                bytes += chunk.len();
                if bytes > most {
                    break;
                }
                drained.extend(job.chunks.pop_front());
            }
            (drained, job.chunks.front().map(Bytes::len))
        }))
    }

    async fn take_stops(&self, endpoint: &str, worker: &str) -> Result<Vec<String>, StoreError> {
        Ok(self.at(endpoint, |jobs| jobs.stops.remove(worker).unwrap_or_default()))
    }

    async fn counts(&self, endpoint: &str) -> Result<Counts, StoreError> {
        Ok(self.at(endpoint, |jobs| Counts {
            in_queue: jobs.standing(JobState::InQueue).count() as u64,
            in_progress: jobs.standing(JobState::InProgress).count() as u64,
            ..jobs.counts
        }))
    }

    async fn sync_clock(&self, on: Option<UnixTime>, wall: UnixTime) -> Result<UnixTime, StoreError> {
        let mut kept = self.time.lock().unwrap_or_else(PoisonError::into_inner);
        let now = ClockReading::after(*kept, on, wall);
        *kept = Some(now);
        Ok(now.on)
    }

    async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        Ok(self.all_keys().values().cloned().collect())
    }

    async fn add_key(&self, key: KeyRecord) -> Result<(), StoreError> {
        let mut keys = self.all_keys();
        if keys.contains_key(&key.name) {
            return Err(StoreError::Duplicate);
        }
        keys.insert(key.name.clone(), key);
        Ok(())
    }

    async fn remove_key(&self, name: &str) -> Result<bool, StoreError> {
        Ok(self.all_keys().remove(name).is_some())
    }

    fn subscribe(&self) -> Subscription {
        self.sender.subscribe()
    }
}
