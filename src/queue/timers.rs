//! What time does to a job.

use std::time::Duration;

use crate::date::UnixTime;

use super::record::{JobState, JobWebhook, Record, WebhookAttempt};
use super::transitions::Transition;

/// How patient an endpoint is, and with how many jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// From the last sign of a job from its worker, or from its handing out, until it is taken for lost.
    pub lost: Duration,
    /// Since when signs of workers are heard: for how long nobody listened before is held against none.
    pub since: UnixTime,
    /// How often a job is tried anew whose worker was lost.
    pub retries: u32,
    /// How many jobs may wait when another is submitted; without, all.
    pub waiting: Option<u64>,
    /// How webhooks are told.
    pub tells: WebhookRetry,
}

/// How often a webhook is tried, and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebhookRetry {
    /// In all.
    pub tries: u32,
    /// From the end of one try to the next.
    pub pause: Duration,
    /// For one try. When twice as much has passed and nobody has said how it went, who made it is taken for dead.
    pub time: Duration,
}

impl Default for WebhookRetry {
    /// As the hosted platform has it.
    fn default() -> Self {
        Self { tries: 3, pause: Duration::from_secs(10), time: Duration::from_secs(30) }
    }
}

impl Default for Rules {
    /// As the hosted platform has it: live replies show 42 to 46 seconds, and one retry.
    fn default() -> Self {
        Self {
            lost: Duration::from_secs(40),
            since: UnixTime::EPOCH,
            retries: 1,
            waiting: None,
            tells: WebhookRetry::default(),
        }
    }
}

impl Record {
    /// When time does something to the job by itself, if nothing else does before.
    pub fn due(&self, rules: &Rules) -> UnixTime {
        let mut due = if self.gone { UnixTime::EPOCH } else { self.expires };
        if let (JobState::InProgress, Some(attempt)) = (self.state, &self.attempt) {
            due = attempt.lost(rules).into_iter().fold(due.min(attempt.began + self.patience), UnixTime::min);
        }
        if let Some(ended) = self.ended {
            due = due.min(ended + self.kept);
        }
        let hook = self.hook.as_ref().and_then(|hook| hook.due);
        if self.gone {
            let sent = self.sent.as_ref().map(|sent| sent.until);
            return [hook, sent].into_iter().flatten().min().unwrap_or(due);
        }
        hook.map_or(due, |hook| due.min(hook))
    }

    /// Whether all of it can be thrown away.
    pub fn is_over(&self) -> bool {
        self.is_told() && self.sent.is_none()
    }

    /// Whether nobody needs its payloads any more.
    pub fn is_told(&self) -> bool {
        self.gone && self.hook.as_ref().is_none_or(|hook| hook.due.is_none())
    }

    /// Time has passed. Hooks are told by [`JobWebhook::begin`].
    pub fn tick(&mut self, rules: &Rules, now: UnixTime) -> Transition {
        if self.gone {
            let forgotten = self.sent.take_if(|sent| sent.until <= now);
            return forgotten.map_or(Transition::Unchanged, |_| Transition::Changed);
        }
        if self.expires <= now {
            let turn = if self.state.is_end() { Transition::Changed } else { self.expire(now) };
            self.gone = true;
            return turn;
        }
        if self.ended.is_some_and(|ended| ended + self.kept <= now) {
            self.gone = true;
            return Transition::Changed;
        }
        if self.is_late(now) {
            return self.stop(JobState::TimedOut, Some(self.overtime()), now);
        }
        let (JobState::InProgress, Some(attempt)) = (self.state, &mut self.attempt) else {
            return Transition::Unchanged;
        };
        // Whatever else is known of its worker: it may have been gone before this gateway was there.
        if attempt.lost(rules).is_none_or(|lost| lost > now) {
            return Transition::Unchanged;
        }
        if attempt.heard() < rules.since {
            attempt.listed = Some(rules.since);
        } else {
            self.missing("its worker no longer named it", rules, now);
        }
        Transition::Changed
    }

    /// Whether its attempt has taken as long as one may.
    pub(super) fn is_late(&self, now: UnixTime) -> bool {
        let began = self.attempt.as_ref().filter(|_| self.state == JobState::InProgress).map(|attempt| attempt.began);
        began.is_some_and(|began| began + self.patience <= now)
    }

    /// What a client is told then.
    pub(super) fn overtime(&self) -> String {
        format!("job took longer than its execution timeout of {} ms", self.patience.as_millis())
    }

    fn expire(&mut self, now: UnixTime) -> Transition {
        let most = self.submitted.until(self.expires).as_millis();
        self.stop(JobState::TimedOut, Some(format!("job was not done within its ttl of {most} ms")), now)
    }
}

/// How a try of a webhook went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookOutcome {
    /// Its receiver has taken it.
    Accepted,
    /// Another try may help; why this one did not.
    Failed(String),
    /// No other will help, and why.
    Refused(String),
}

/// Tries that are remembered of a job's webhook.
const MAX_WEBHOOK_LOG: usize = 12;

impl JobWebhook {
    /// Begins a try if one is due; another is due if nobody says how this one went.
    pub fn begin(&mut self, tells: &WebhookRetry, now: UnixTime) -> bool {
        let begins = self.due.is_some_and(|due| due <= now);
        if begins {
            (self.due, self.tries) = (Some(now + tells.time * 2), self.tries + 1);
        }
        begins
    }

    /// Nobody has time for it: it is due again then.
    pub fn put_off(&mut self, until: UnixTime) {
        self.due = self.due.map(|_| until);
    }

    /// How a try of a message went. Returns whether the message is settled: told, or given up.
    pub fn told(&mut self, message: u32, went: &WebhookOutcome, tells: &WebhookRetry, now: UnixTime) -> bool {
        let why = match went {
            WebhookOutcome::Accepted => None,
            WebhookOutcome::Failed(why) | WebhookOutcome::Refused(why) => Some(why.clone()),
        };
        self.log.push(WebhookAttempt { message, at: now, why });
        self.log.drain(..self.log.len().saturating_sub(MAX_WEBHOOK_LOG));
        if message != self.message {
            return true;
        }
        let again = matches!(went, WebhookOutcome::Failed(_)) && self.tries < tells.tries;
        self.due = again.then(|| now + tells.pause);
        self.due.is_none()
    }
}
