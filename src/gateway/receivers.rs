//! Receivers of webhooks: neither one of them nor one client's may take up all calls.
//!
//! A receiver is a host, by whose key it is called: what one client's receiver does is nothing to another client's. One that keeps failing is
//! called by one webhook now and then, until it takes one; its others wait, and no try of theirs is counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::date::UnixTime;

/// Calls at the same time.
const MAX_RECEIVER_CALLS: usize = 256;

/// Of them to one receiver.
const MAX_CALLS_PER_RECEIVER: usize = 32;

/// Of them by one key, to whatever receivers. Clients without a key share none with those who have one.
const MAX_CALLS_PER_CLIENT: usize = 128;

/// How many of those that wait for the same share come back at once, and how long after those before them. A receiver that answers is soon called
/// for all of them, and to ask for many thousands again costs no more than that.
const TURN: (u32, Duration) = (32, Duration::from_millis(250));

/// Failures in a row that have a receiver paused.
const FAILURES_BEFORE_PAUSE: u32 = 8;

/// The first pause, and the longest; each that does not help is twice as long as the one before.
const PAUSE_RANGE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_mins(5));

/// Receivers that are remembered; beyond, those that are not called and not paused are forgotten.
const MAX_RECEIVERS: usize = 4096;

/// Whose a webhook is, and where it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Receiver {
    /// What its client is known by; `None` where no key is needed.
    pub(super) by: Option<String>,
    /// Its host, and port.
    pub(super) host: String,
}

/// Why a webhook has to wait, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MustWait {
    /// Its receiver or its client has its share of calls, or there are no more.
    Crowded(UnixTime),
    /// Its receiver is paused.
    Paused(UnixTime),
}

/// Counts calls.
#[derive(Debug, Default)]
pub(super) struct Receivers(Mutex<ReceiverState>);

#[derive(Debug, Default)]
struct ReceiverState {
    all: Share,
    by_key: HashMap<String, Share>,
    receivers: HashMap<Receiver, ReceiverHealth>,
}

/// Calls that are limited together.
#[derive(Debug, Default)]
struct Share {
    calls: usize,
    /// When the last turn of those that wait begins, and how many have it.
    turn: Option<(UnixTime, u32)>,
}

#[derive(Debug, Default)]
struct ReceiverHealth {
    share: Share,
    /// In a row.
    failures: u32,
    paused: Option<UnixTime>,
}

/// A call's place. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct CallPermit {
    receivers: Arc<Receivers>,
    receiver: Receiver,
}

impl Share {
    /// Whether there is a call to be had of so many; else when to ask again.
    fn free(&mut self, most: usize, now: UnixTime) -> Result<(), MustWait> {
        if self.calls < most {
            return Ok(());
        }
        let (begins, before) = match self.turn.filter(|(begins, _)| *begins > now) {
            Some((begins, before)) if before < TURN.0 => (begins, before),
            Some((begins, _)) => (begins + TURN.1, 0),
            None => (now + TURN.1, 0),
        };
        self.turn = Some((begins, before + 1));
        Err(MustWait::Crowded(begins))
    }
}

impl Receivers {
    /// A place for a call, if there is one for this receiver now.
    pub(super) fn enter(self: &Arc<Self>, receiver: Receiver, now: UnixTime) -> Result<CallPermit, MustWait> {
        let mut known = self.known();
        known.all.free(MAX_RECEIVER_CALLS, now)?;
        if let Some(share) = receiver.by.as_ref().and_then(|by| known.by_key.get_mut(by)) {
            share.free(MAX_CALLS_PER_CLIENT, now)?;
        }
        if known.receivers.len() >= MAX_RECEIVERS {
            known
                .receivers
                .retain(|_, health| health.share.calls > 0 || health.paused.is_some_and(|until| until > now));
        }
        let health = known.receivers.entry(receiver.clone()).or_default();
        if let Some(until) = health.paused {
            if until > now {
                return Err(MustWait::Paused(until));
            }
            if health.share.calls > 0 {
                // One is enough to see whether it lives.
                return Err(MustWait::Paused(now + PAUSE_RANGE.0));
            }
        }
        health.share.free(MAX_CALLS_PER_RECEIVER, now)?;
        health.share.calls += 1;
        known.all.calls += 1;
        if let Some(by) = &receiver.by {
            known.by_key.entry(by.clone()).or_default().calls += 1;
        }
        Ok(CallPermit { receivers: self.clone(), receiver })
    }

    /// How many are paused.
    pub(super) fn paused(&self, now: UnixTime) -> usize {
        let paused =
            |health: &&ReceiverHealth| health.paused.is_some_and(|until| until > now || health.share.calls > 0);
        self.known().receivers.values().filter(paused).count()
    }

    fn known(&self) -> MutexGuard<'_, ReceiverState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CallPermit {
    /// How the call went: whether its receiver lives. Returns for how long it is paused, if that begins now or goes on.
    pub(super) fn went(self, lives: bool, now: UnixTime) -> Option<Duration> {
        let mut known = self.receivers.known();
        let health = known.receivers.get_mut(&self.receiver)?;
        if lives {
            (health.failures, health.paused) = (0, None);
            return None;
        }
        health.failures = health.failures.saturating_add(1);
        let more = health.failures.checked_sub(FAILURES_BEFORE_PAUSE)?;
        // Those that had begun before the pause say nothing new.
        if health.paused.is_some_and(|until| until > now) {
            return None;
        }
        let pause = (PAUSE_RANGE.0 * 2_u32.saturating_pow(more.min(8))).min(PAUSE_RANGE.1);
        health.paused = Some(now + pause);
        Some(pause)
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        let mut known = self.receivers.known();
        known.all.calls = known.all.calls.saturating_sub(1);
        if let Some(by) = &self.receiver.by
            && let Some(share) = known.by_key.get_mut(by)
        {
            share.calls -= 1;
            if share.calls == 0 {
                known.by_key.remove(by);
            }
        }
        if let Some(health) = known.receivers.get_mut(&self.receiver) {
            health.share.calls = health.share.calls.saturating_sub(1);
            if health.share.calls == 0 && health.failures == 0 {
                known.receivers.remove(&self.receiver);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::from_millis(1000 * seconds)
    }

    fn receiver(by: Option<&str>, host: &str) -> Receiver {
        Receiver { by: by.map(str::to_owned), host: host.into() }
    }

    #[test]
    fn nobody_has_all_calls() {
        let receivers = Arc::new(Receivers::default());
        let enter = |by: Option<&str>, host: &str| receivers.enter(receiver(by, host), at(0));
        let silent: Vec<_> = (0..MAX_CALLS_PER_RECEIVER).map(|_| enter(Some("a"), "silent").unwrap()).collect();
        let crowded = MustWait::Crowded(at(0) + TURN.1);
        assert_eq!(enter(Some("a"), "silent").unwrap_err(), crowded);
        assert!(enter(Some("a"), "other").is_ok() && enter(Some("b"), "silent").is_ok());
        let many: Vec<_> = (0..MAX_CALLS_PER_CLIENT - MAX_CALLS_PER_RECEIVER)
            .map(|n| enter(Some("a"), &n.to_string()).unwrap())
            .collect();
        assert_eq!(enter(Some("a"), "new").unwrap_err(), crowded);
        let rest: Vec<_> =
            (0..MAX_RECEIVER_CALLS - MAX_CALLS_PER_CLIENT).map(|n| enter(None, &n.to_string()).unwrap()).collect();
        assert_eq!(enter(Some("b"), "new").unwrap_err(), crowded);
        drop((silent, many));
        assert!(enter(Some("a"), "silent").is_ok());
        drop(rest);
        assert!(receivers.known().receivers.is_empty() && receivers.known().by_key.is_empty(), "nothing is left");
    }

    #[test]
    fn those_that_find_no_call_come_back_in_turns() {
        let receivers = Arc::new(Receivers::default());
        let enter = |now: UnixTime| receivers.enter(receiver(None, "slow"), now);
        let mut calls: Vec<_> = (0..MAX_CALLS_PER_RECEIVER).map(|_| enter(at(0)).unwrap()).collect();
        for turn in 1..=3 {
            for _ in 0..TURN.0 {
                assert_eq!(enter(at(0)).unwrap_err(), MustWait::Crowded(at(0) + TURN.1 * turn));
            }
        }
        let first = at(0) + TURN.1;
        assert_eq!(enter(first).unwrap_err(), MustWait::Crowded(at(0) + TURN.1 * 4), "behind those that wait");
        calls.pop();
        calls.push(enter(first).unwrap());
        assert_eq!(enter(at(9)).unwrap_err(), MustWait::Crowded(at(9) + TURN.1), "nobody waits any more");
    }

    #[test]
    fn who_keeps_failing_is_called_now_and_then_until_it_lives() {
        let receivers = Arc::new(Receivers::default());
        let enter = |second| receivers.enter(receiver(None, "dead"), at(second));
        for _ in 1..FAILURES_BEFORE_PAUSE {
            assert_eq!(enter(0).unwrap().went(false, at(0)), None);
        }
        let late = enter(0).unwrap();
        assert_eq!(enter(0).unwrap().went(false, at(0)), Some(PAUSE_RANGE.0));
        assert_eq!((late.went(false, at(1)), receivers.paused(at(1))), (None, 1));
        assert_eq!(enter(29).unwrap_err(), MustWait::Paused(at(30)));
        let probe = enter(30).unwrap();
        assert_eq!(enter(31).unwrap_err(), MustWait::Paused(at(61)), "one alone");
        assert!(receivers.enter(receiver(Some("b"), "dead"), at(31)).is_ok(), "it is another's, too");
        assert!(probe.went(false, at(60)) > Some(PAUSE_RANGE.0));
        let mut now = 60;
        let longest = (0..9).map(|_| {
            now += PAUSE_RANGE.1.as_secs();
            enter(now).unwrap().went(false, at(now))
        });
        assert_eq!(longest.last().unwrap(), Some(PAUSE_RANGE.1));
        assert_eq!(enter(now + 300).unwrap().went(true, at(now + 300)), None);
        assert_eq!(receivers.paused(at(now + 300)), 0);
        let healthy: Vec<_> = (0..MAX_CALLS_PER_RECEIVER).map(|_| enter(now + 300).unwrap()).collect();
        drop(healthy);
    }

    #[test]
    fn there_is_an_end_of_those_that_are_remembered() {
        let receivers = Arc::new(Receivers::default());
        for number in 0..3 * MAX_RECEIVERS {
            receivers.enter(receiver(None, &number.to_string()), at(0)).unwrap().went(false, at(0));
        }
        assert!(receivers.known().receivers.len() <= MAX_RECEIVERS);
    }
}
