//! What time does to a job.

use std::time::Duration;

use crate::date::UnixTime;

use super::laws::Turn;
use super::record::{Hook, Record, State};

/// How patient an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// From the last heartbeat that named a job, until it is taken for lost.
    pub lost: Duration,
    /// How often a job is tried anew whose worker was lost.
    pub retries: u32,
}

impl Default for Rules {
    /// As the hosted platform has it: live replies show 42 to 46 seconds, and one retry.
    fn default() -> Self {
        Self { lost: Duration::from_secs(40), retries: 1 }
    }
}

/// How often a message is tried, how long after each other, and how long one try may take before another is due.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(10);
const TRY: Duration = Duration::from_mins(1);

impl Record {
    /// When time does something to the job by itself, if nothing else does before.
    pub fn due(&self, rules: &Rules) -> UnixTime {
        let mut due = if self.gone { UnixTime::EPOCH } else { self.expires };
        if let (State::InProgress, Some(attempt)) = (self.state, &self.attempt) {
            due = due.min(attempt.began + self.patience);
            due = attempt.listed.map_or(due, |listed| due.min(listed + rules.lost));
        }
        if let Some(ended) = self.ended {
            due = due.min(ended + self.kept);
        }
        match self.hook.as_ref().and_then(|hook| hook.due) {
            Some(tell) if self.gone => tell,
            Some(tell) => due.min(tell),
            None => due,
        }
    }

    /// Whether all of it can be thrown away.
    pub fn is_over(&self) -> bool {
        self.gone && self.hook.as_ref().is_none_or(|hook| hook.due.is_none())
    }

    /// Time has passed. Hooks are told by [`Hook::begin`].
    pub fn tick(&mut self, rules: &Rules, now: UnixTime) -> Turn {
        if self.gone {
            return Turn::Nothing;
        }
        if self.expires <= now {
            let turn = if self.state.is_end() { Turn::Changed } else { self.expire(now) };
            self.gone = true;
            return turn;
        }
        if self.ended.is_some_and(|ended| ended + self.kept <= now) {
            self.gone = true;
            return Turn::Changed;
        }
        let (State::InProgress, Some(attempt)) = (self.state, &self.attempt) else { return Turn::Nothing };
        if attempt.began + self.patience <= now {
            let most = self.patience.as_millis();
            return self.stop(
                State::TimedOut,
                Some(format!("job took longer than its execution timeout of {most} ms")),
                now,
            );
        }
        if attempt.listed.is_some_and(|listed| listed + rules.lost <= now) {
            self.lost("its worker no longer named it", rules, now);
            return Turn::Changed;
        }
        Turn::Nothing
    }

    fn expire(&mut self, now: UnixTime) -> Turn {
        let most = self.submitted.until(self.expires).as_millis();
        self.stop(State::TimedOut, Some(format!("job was not done within its ttl of {most} ms")), now)
    }
}

impl Hook {
    /// Begins a try if one is due; another is due if nobody says how this one went.
    pub fn begin(&mut self, now: UnixTime) -> bool {
        let begins = self.due.is_some_and(|due| due <= now);
        if begins {
            (self.due, self.tries) = (Some(now + TRY), self.tries + 1);
        }
        begins
    }

    /// How a try of a message went. Returns whether the message is settled: told, or given up.
    pub fn told(&mut self, message: u32, well: bool, now: UnixTime) -> bool {
        if message != self.message {
            return true;
        }
        self.due = if well || self.tries >= TRIES { None } else { Some(now + PAUSE) };
        self.due.is_none()
    }
}
