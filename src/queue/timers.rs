//! What time does to a job.

use crate::date::UnixTime;

use super::record::{JobState, JobWebhook, Record, WebhookAttempt};
use super::rules::{Rules, WebhookRetry};
use super::transitions::Transition;

impl Record {
    /// When time does something to the job by itself, if nothing else does before.
    pub fn due(&self, rules: &Rules) -> UnixTime {
        let mut due = if self.hidden { UnixTime::EPOCH } else { self.expires };
        if let (JobState::InProgress, Some(attempt)) = (self.state, &self.attempt) {
            due =
                attempt.lost_at(rules).into_iter().fold(due.min(attempt.began + self.execution_timeout), UnixTime::min);
        }
        if let Some(ended) = self.ended {
            due = due.min(ended + self.retention);
        }
        let hook = self.webhook.as_ref().and_then(|hook| hook.due);
        if self.hidden {
            let sent = self.idempotency.as_ref().map(|sent| sent.until);
            return [hook, sent].into_iter().flatten().min().unwrap_or(due);
        }
        hook.map_or(due, |hook| due.min(hook))
    }

    /// Whether all of it can be thrown away.
    pub fn is_disposable(&self) -> bool {
        self.payloads_are_spent() && self.idempotency.is_none()
    }

    /// Whether its payloads are no longer needed.
    pub fn payloads_are_spent(&self) -> bool {
        self.hidden && self.webhook.as_ref().is_none_or(|hook| hook.due.is_none())
    }

    /// Time has passed. Hooks are told by [`JobWebhook::begin_attempt`].
    pub fn tick(&mut self, rules: &Rules, now: UnixTime) -> Transition {
        if self.hidden {
            let forgotten = self.idempotency.take_if(|sent| sent.until <= now);
            return forgotten.map_or(Transition::Unchanged, |_| Transition::Changed);
        }
        if self.expires <= now {
            let transition = if self.state.is_end() { Transition::Changed } else { self.expire(now) };
            self.hidden = true;
            return transition;
        }
        if self.ended.is_some_and(|ended| ended + self.retention <= now) {
            self.hidden = true;
            return Transition::Changed;
        }
        if self.is_late(now) {
            return self.stop(JobState::TimedOut, Some(self.timeout_message()), now);
        }
        let (JobState::InProgress, Some(attempt)) = (self.state, &mut self.attempt) else {
            return Transition::Unchanged;
        };
        // Whatever else is known of its worker: it may have been gone before this gateway was there.
        if attempt.lost_at(rules).is_none_or(|lost| lost > now) {
            return Transition::Unchanged;
        }
        if attempt.last_sign() < rules.listening_since {
            attempt.last_heartbeat = Some(rules.listening_since);
        } else {
            self.missing("its worker no longer named it", rules, now);
        }
        Transition::Changed
    }

    /// Whether its attempt has taken as long as one may.
    pub(super) fn is_late(&self, now: UnixTime) -> bool {
        let began = self.attempt.as_ref().filter(|_| self.state == JobState::InProgress).map(|attempt| attempt.began);
        began.is_some_and(|began| began + self.execution_timeout <= now)
    }

    /// What a client is told then.
    pub(super) fn timeout_message(&self) -> String {
        format!("job took longer than its execution timeout of {} ms", self.execution_timeout.as_millis())
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
    /// Begins a try if one is due; another is due if it is not said how this one went.
    pub fn begin_attempt(&mut self, retry: &WebhookRetry, now: UnixTime) -> bool {
        let begins = self.due.is_some_and(|due| due <= now);
        if begins {
            (self.due, self.tries) = (Some(now + retry.timeout * 2), self.tries + 1);
        }
        begins
    }

    /// There is no time for it: it is due again then.
    pub fn postpone(&mut self, until: UnixTime) {
        self.due = self.due.map(|_| until);
    }

    /// How a try of a message went. Returns whether the message is settled: told, or given up.
    pub fn record_attempt(&mut self, message: u32, went: &WebhookOutcome, retry: &WebhookRetry, now: UnixTime) -> bool {
        let error = match went {
            WebhookOutcome::Accepted => None,
            WebhookOutcome::Failed(why) | WebhookOutcome::Refused(why) => Some(why.clone()),
        };
        self.log.push(WebhookAttempt { message, at: now, error });
        self.log.drain(..self.log.len().saturating_sub(MAX_WEBHOOK_LOG));
        if message != self.message {
            return true;
        }
        let again = matches!(went, WebhookOutcome::Failed(_)) && self.tries < retry.tries;
        self.due = again.then(|| now + retry.pause);
        self.due.is_none()
    }
}
