//! What happens to a job.

use std::mem::replace;
use std::time::Duration;

use crate::date::UnixTime;

use super::record::{Attempt, Claim, FailedAttempt, JobState, JobWebhook, Record};
use super::rules::Rules;

/// What an event meant to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Transition {
    /// Nothing: it came too late, or is none of this job's business.
    Unchanged,
    /// The record changed.
    Changed,
    /// It changed, and this worker works on it in vain.
    Stop(String),
}

/// What a worker brings at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish<'a> {
    /// Who brings it.
    pub worker: &'a str,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// Whether there is an output; of a failure, too.
    pub output: bool,
}

/// Within this time a worker that has a job has named it: heartbeats are ten seconds apart.
const FIRST_HEARTBEAT: Duration = Duration::from_secs(11);

/// Attempts that may come to nothing for free, without a sign that their workers ever got the job. After those it is lost like others:
/// a job that ends its worker, or a result that its worker cannot send, may be done with before a heartbeat names it, each time again.
const FREE_ATTEMPTS: usize = 2;

/// Attempts that came to nothing and are remembered one by one; before them only how many there were. Clients may retry for ever.
const MAX_FAILED_ATTEMPTS: usize = 50;

/// Characters of why an attempt came to nothing. A worker's error may be as long as its result.
const MAX_REASON_CHARS: usize = 1000;

impl Record {
    /// A worker is handed the job. Whether it arrives is yet to be seen.
    pub fn start(&mut self, taking: &Claim) -> Transition {
        let Claim { worker, gpu, sends_heartbeats, at } = taking;
        if self.state != JobState::InQueue || self.hidden || self.expires <= *at {
            return Transition::Unchanged;
        }
        self.state = JobState::InProgress;
        self.attempt = Some(Attempt {
            number: self.attempts() + 1,
            worker: worker.clone(),
            gpu: gpu.clone(),
            sends_heartbeats: *sends_heartbeats,
            began: *at,
            arrived: false,
            last_heartbeat: None,
            missed_heartbeats: 0,
            last_progress: None,
            reported_idle: None,
        });
        Transition::Changed
    }

    /// A heartbeat of a worker names the job, or does not.
    ///
    /// One that does not may have been on its way when the job was handed out, or may be another worker's under the same id; of two that
    /// do not, the second was not, if whoever has the job had the time to name it. A job that has arrived and is no longer named is on its
    /// way back, or lost: time will tell.
    pub fn heartbeat(&mut self, worker: &str, named: bool, rules: &Rules, now: UnixTime) -> Transition {
        let Some(attempt) = self.held_by(worker) else { return Transition::Unchanged };
        let first = !replace(&mut attempt.sends_heartbeats, true);
        match (named, attempt.arrived) {
            (true, _) => {
                attempt.arrived = true;
                attempt.last_heartbeat = Some(now);
            }
            (false, true) => return if first { Transition::Changed } else { Transition::Unchanged },
            (false, false) if attempt.missed_heartbeats == 0 => attempt.missed_heartbeats = 1,
            (false, false) if attempt.began + FIRST_HEARTBEAT > now => return Transition::Unchanged,
            (false, false) => self.missing("it never arrived", rules, now),
        }
        Transition::Changed
    }

    /// A worker says that it has nothing in hand. Of a job of which there was a sign shortly before that may be the word of another worker
    /// under its id, and is only noted.
    pub fn report_idle(&mut self, worker: &str, why: &str, rules: &Rules, now: UnixTime) -> Transition {
        let Some(attempt) = self.held_by(worker) else { return Transition::Unchanged };
        if attempt.idle_doubted_until(rules) <= now {
            self.missing(why, rules, now);
        } else if attempt.reported_idle.is_some() {
            return Transition::Unchanged;
        } else {
            attempt.reported_idle = Some(now);
        }
        Transition::Changed
    }

    /// A worker is gone, or cannot work.
    pub fn abandon(&mut self, worker: &str, why: &str, rules: &Rules, now: UnixTime) -> Transition {
        if self.held_by(worker).is_none() {
            return Transition::Unchanged;
        }
        self.missing(why, rules, now);
        Transition::Changed
    }

    /// A worker tells of the job's progress; an `output` is its word on it.
    pub fn progress(&mut self, worker: &str, now: UnixTime) -> Transition {
        let Some(attempt) = self.held_by(worker) else { return Transition::Unchanged };
        attempt.arrived = true;
        attempt.last_progress = Some(now);
        self.output = true;
        Transition::Changed
    }

    /// A worker brings a part of the result.
    pub fn part(&mut self, worker: &str) -> Transition {
        let Some(attempt) = self.held_by(worker) else { return Transition::Unchanged };
        attempt.arrived = true;
        Transition::Changed
    }

    /// A worker brings the end. The first end counts, whoever brings it: work that was taken for lost is as good as any.
    pub fn finish(&mut self, finish: Finish<'_>, now: UnixTime) -> Transition {
        if self.state.is_end() || self.hidden {
            return Transition::Unchanged;
        }
        let other = self.holder().filter(|holder| *holder != finish.worker).map(str::to_owned);
        if self.holder() != Some(finish.worker) {
            self.revive(finish.worker, now);
        }
        if let Some(attempt) = &mut self.attempt {
            attempt.arrived = true;
        }
        // A worker that keeps to the time may be a moment faster than the clock here, and has no other word for it than an error.
        let late = self.is_late(now);
        let (state, error) = match finish.error {
            None => (JobState::Completed, None),
            Some(_) if late => (JobState::TimedOut, Some(self.timeout_message())),
            Some(error) => (JobState::Failed, Some(error)),
        };
        self.end(state, error, now);
        self.output = finish.output;
        other.map_or(Transition::Changed, Transition::Stop)
    }

    /// The client wants it no more.
    pub fn cancel(&mut self, now: UnixTime) -> Transition {
        if self.state.is_end() || self.hidden {
            Transition::Unchanged
        } else {
            self.stop(JobState::Cancelled, None, now)
        }
    }

    /// The client wants it tried again from the beginning.
    pub fn retry(&mut self, now: UnixTime) -> Transition {
        if !matches!(self.state, JobState::Failed | JobState::TimedOut) || self.hidden {
            return Transition::Unchanged;
        }
        let why = self.error.take().unwrap_or_default();
        self.archive_attempt(&why, self.ended.unwrap_or(now));
        (self.state, self.ended, self.output, self.retries) = (JobState::InQueue, None, false, 0);
        Transition::Changed
    }

    /// All attempts that there were.
    pub fn attempts(&self) -> u32 {
        let latest = self.attempt.iter().map(|attempt| attempt.number);
        latest.chain(self.failed_attempts.iter().map(|past| past.number)).max().unwrap_or(0)
    }

    /// Its worker has it no more, if it ever had.
    pub(super) fn missing(&mut self, why: &str, rules: &Rules, now: UnixTime) {
        if self.attempt.as_ref().is_some_and(|attempt| attempt.arrived) || self.failed_attempts.len() >= FREE_ATTEMPTS {
            self.lost(why, rules, now);
        } else {
            self.requeue(why, now);
        }
    }

    /// Its worker was lost with it.
    fn lost(&mut self, why: &str, rules: &Rules, now: UnixTime) {
        if self.retries >= rules.retries {
            self.end(JobState::Failed, Some(format!("job timed out after {} retries", self.retries)), now);
        } else {
            self.requeue(why, now);
            self.retries += 1;
        }
    }

    /// It ends by no doing of its worker, which is to be told.
    pub(super) fn stop(&mut self, state: JobState, error: Option<String>, now: UnixTime) -> Transition {
        let holder = self.holder().map(str::to_owned);
        self.end(state, error, now);
        holder.map_or(Transition::Changed, Transition::Stop)
    }

    fn end(&mut self, state: JobState, error: Option<String>, now: UnixTime) {
        (self.state, self.error, self.ended, self.output) = (state, error, Some(now), false);
        if let Some(hook) = &mut self.webhook {
            (hook.message, hook.due, hook.tries) = (hook.message + 1, Some(now), 0);
        }
    }

    fn requeue(&mut self, why: &str, now: UnixTime) {
        self.archive_attempt(why, now);
        (self.state, self.output) = (JobState::InQueue, false);
    }

    /// Puts the latest attempt with those that came to nothing.
    fn archive_attempt(&mut self, why: &str, now: UnixTime) {
        if let Some(Attempt { number, worker, began, .. }) = self.attempt.take() {
            self.failed_attempts.push(FailedAttempt {
                number,
                worker,
                began,
                ended: now,
                reason: why.chars().take(MAX_REASON_CHARS).collect(),
            });
        }
        // The newest has the highest number, which tells that of the next.
        let first = self.failed_attempts.iter().enumerate().min_by_key(|(_, past)| past.number).map(|(place, _)| place);
        if let Some(first) = first.filter(|_| self.failed_attempts.len() > MAX_FAILED_ATTEMPTS) {
            self.failed_attempts.remove(first);
            self.forgotten_attempts += 1;
        }
    }

    /// An attempt that was given up has come to something after all, or one that is unknown.
    fn revive(&mut self, worker: &str, now: UnixTime) {
        let found = self.failed_attempts.iter().rposition(|past| past.worker == worker);
        let (number, began) = match found.map(|place| self.failed_attempts.remove(place)) {
            Some(past) => (past.number, past.began),
            // By somebody who delivers for one that had it.
            None => (self.attempts() + 1, self.attempt.as_ref().map_or(now, |attempt| attempt.began)),
        };
        self.archive_attempt("another worker was first", now);
        self.attempt = Some(Attempt {
            number,
            worker: worker.to_owned(),
            gpu: None,
            sends_heartbeats: false,
            began,
            arrived: true,
            last_heartbeat: None,
            missed_heartbeats: 0,
            last_progress: None,
            reported_idle: None,
        });
    }

    fn held_by(&mut self, worker: &str) -> Option<&mut Attempt> {
        let held = self.holder() == Some(worker) && !self.hidden;
        self.attempt.as_mut().filter(|_| held)
    }
}

impl JobWebhook {
    /// A hook that has nothing to tell yet.
    pub fn new(url: impl Into<String>, headers: Vec<(String, String)>) -> Self {
        Self { url: url.into(), headers, client: None, message: 0, due: None, tries: 0, log: Vec::new() }
    }
}
