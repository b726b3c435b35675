//! What an engine made use of on its GPU: counted on the engine's thread, read on any.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Counters of one engine.
#[derive(Debug, Default)]
pub struct Usage {
    evaluations: AtomicU64,
    recorded: AtomicU64,
    replayed: AtomicU64,
    kernels: AtomicU64,
}

/// What they show, since the engine began or between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Used {
    /// Evaluations of the UNet.
    pub evaluations: u64,
    /// Evaluations that were recorded as CUDA graphs.
    pub recorded: u64,
    /// Evaluations that were replays of such a graph.
    pub replayed: u64,
    /// Calls of our own kernels, those that were recorded among them; a replay makes none.
    pub kernel_calls: u64,
}

impl Usage {
    /// Until now.
    pub fn used(&self) -> Used {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Used {
            evaluations: read(&self.evaluations),
            recorded: read(&self.recorded),
            replayed: read(&self.replayed),
            kernel_calls: read(&self.kernels),
        }
    }

    pub(super) fn evaluated(&self) {
        self.evaluations.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn recorded(&self) {
        self.recorded.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn replayed(&self) {
        self.replayed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn called_a_kernel(&self) {
        self.kernels.fetch_add(1, Ordering::Relaxed);
    }
}

impl Used {
    /// What came after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            evaluations: self.evaluations - earlier.evaluations,
            recorded: self.recorded - earlier.recorded,
            replayed: self.replayed - earlier.replayed,
            kernel_calls: self.kernel_calls - earlier.kernel_calls,
        }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            evaluations: self.evaluations + other.evaluations,
            recorded: self.recorded + other.recorded,
            replayed: self.replayed + other.replayed,
            kernel_calls: self.kernel_calls + other.kernel_calls,
        }
    }

    /// Whether every evaluation was a replay of a graph that was there before.
    pub fn only_replays(self) -> bool {
        self.recorded == 0 && self.evaluations == self.replayed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evaluation_that_is_recorded_is_not_only_a_replay() {
        let usage = Usage::default();
        usage.evaluated();
        assert!(!usage.used().only_replays());
        let before = usage.used();
        usage.evaluated();
        usage.recorded();
        usage.replayed();
        assert!(!usage.used().since(before).only_replays());
        let before = usage.used();
        usage.evaluated();
        usage.replayed();
        let last = usage.used().since(before);
        assert!(last.only_replays());
        assert_eq!(before.and(last), usage.used());
    }
}
