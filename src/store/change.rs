//! What a change of a record means to what is kept around it; the same for every store.

use super::news::News;
use super::{Part, Record, State, Turn};

/// How many jobs an endpoint has and had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Jobs that wait.
    pub in_queue: u64,
    /// Jobs that workers hold.
    pub in_progress: u64,
    /// Jobs that were completed, ever.
    pub completed: u64,
    /// Jobs that failed or timed out, ever.
    pub failed: u64,
    /// Attempts that were given up and made anew, ever.
    pub retried: u64,
}

/// A number that only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tally {
    Completed,
    Failed,
    Retried,
}

/// What follows from a record's change.
#[derive(Debug, PartialEq)]
pub(super) struct Outcome {
    /// Numbers that grow by one.
    pub(super) tallies: Vec<Tally>,
    /// Payloads that belong to what is no longer so.
    pub(super) stale: &'static [Part],
    /// Whether what is there of its stream is no longer so.
    pub(super) restream: bool,
    /// Whether it goes to the end of its line; else it keeps its place.
    pub(super) last: bool,
    /// What to tell.
    pub(super) news: Vec<News>,
}

/// What follows when `before` has become `after` by a `turn` that was not nothing.
pub(super) fn outcome(endpoint: &str, before: &Record, after: &Record, turn: &Turn) -> Outcome {
    let (endpoint_, id) = (|| endpoint.to_owned(), || after.id.clone());
    let became = |state: State| before.state != state && after.state == state;
    let mut tallies = Vec::new();
    if became(State::Completed) {
        tallies.push(Tally::Completed);
    }
    if became(State::Failed) || became(State::TimedOut) {
        tallies.push(Tally::Failed);
    }
    if before.state == State::InProgress && became(State::InQueue) {
        tallies.push(Tally::Retried);
    }
    let ended = !before.state.is_end() && after.state.is_end();
    let mut news = vec![if ended { News::End } else { News::Job }(endpoint_(), id())];
    if became(State::InQueue) {
        news.push(News::Waiting(endpoint_()));
    }
    if let Turn::Stop(worker) = turn {
        news.push(News::Stop(endpoint_(), worker.clone()));
    }
    let stale: &[Part] = match (after.output, after.state) {
        _ if after.is_told() => &[Part::Input, Part::Rest, Part::Output, Part::Timings, Part::Warnings],
        (false, State::InQueue) => &[Part::Output, Part::Timings, Part::Warnings],
        (false, _) if before.output => &[Part::Output],
        _ => &[],
    };
    // Its client asks for it anew, behind all who asked before. What was only lost waits where it had waited: at the head.
    let last = before.state.is_end() && after.state == State::InQueue;
    Outcome { tallies, stale, restream: became(State::InQueue) || after.is_told(), last, news }
}
