//! What a change of a record means to what is kept around it; the same for every store.

use super::events::StoreEvent;
use super::{JobState, PayloadKind, Record, Transition};

/// A number that only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tally {
    Completed,
    Failed,
    Retried,
}

impl Tally {
    /// What it is kept under.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Retried => "retried",
        }
    }
}

/// What follows from a record's change.
#[derive(Debug, PartialEq)]
pub(super) struct Effects {
    /// Numbers that grow by one.
    pub(super) tallies: Vec<Tally>,
    /// Payloads that belong to what is no longer so.
    pub(super) stale: &'static [PayloadKind],
    /// Whether what is there of its stream is no longer so.
    pub(super) clear_stream: bool,
    /// Whether it goes to the end of its line; else it keeps its place.
    pub(super) to_back: bool,
    /// What to tell.
    pub(super) events: Vec<StoreEvent>,
}

/// What follows when `before` has become `after` by a `transition` that is not [`Transition::Unchanged`].
pub(super) fn effects(endpoint: &str, before: &Record, after: &Record, transition: &Transition) -> Effects {
    let (endpoint_, id) = (|| endpoint.to_owned(), || after.id.clone());
    let became = |state: JobState| before.state != state && after.state == state;
    let mut tallies = Vec::new();
    if became(JobState::Completed) {
        tallies.push(Tally::Completed);
    }
    if became(JobState::Failed) || became(JobState::TimedOut) {
        tallies.push(Tally::Failed);
    }
    if before.state == JobState::InProgress && became(JobState::InQueue) {
        tallies.push(Tally::Retried);
    }
    let ended = !before.state.is_end() && after.state.is_end();
    let mut events = vec![if ended { StoreEvent::JobEnded } else { StoreEvent::JobChanged }(endpoint_(), id())];
    if became(JobState::InQueue) {
        events.push(StoreEvent::JobQueued(endpoint_()));
    }
    if let Transition::Stop(worker) = transition {
        events.push(StoreEvent::WorkerStop(endpoint_(), worker.clone()));
    }
    let stale: &[PayloadKind] = match (after.output, after.state) {
        _ if after.payloads_are_spent() => {
            &[PayloadKind::Input, PayloadKind::Rest, PayloadKind::Output, PayloadKind::Timings, PayloadKind::Warnings]
        }
        (false, JobState::InQueue) => &[PayloadKind::Output, PayloadKind::Timings, PayloadKind::Warnings],
        (false, _) if before.output => &[PayloadKind::Output],
        _ => &[],
    };
    // Its client asks for it again, behind all who asked before. What was only lost waits where it had waited: at the head.
    let to_back = before.state.is_end() && after.state == JobState::InQueue;
    Effects { tallies, stale, clear_stream: became(JobState::InQueue) || after.payloads_are_spent(), to_back, events }
}
