//! Whether the process lives, and whether it is ready for work.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the process is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// The engine loads.
    #[default]
    Loading,
    /// The engine is there; whether this machine is fit is being looked at.
    Examining,
    /// Jobs are taken.
    Ready,
    /// No more jobs are taken; those in hand are finished.
    Draining,
    /// Nothing can be drawn here, and the process is about to end.
    Unfit,
}

impl Phase {
    /// Its name in replies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Examining => "examining",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Unfit => "unfit",
        }
    }

    /// Whether a new process in its place would do better.
    pub fn alive(self) -> bool {
        self != Self::Unfit
    }
}

/// The phase of a process, which it never goes back in. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<Phase>>);

impl Health {
    /// What the process is at.
    pub fn phase(&self) -> Phase {
        *self.lock()
    }

    /// The process is at `phase` from now on, unless it was beyond that already.
    pub fn enter(&self, phase: Phase) {
        let mut now = self.lock();
        if (phase as u8) > (*now as u8) {
            *now = phase;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        // Nothing panics while it is held; a phase is whole in any case.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_does_not_come_back_from_draining() {
        let health = Health::default();
        assert_eq!(health.phase(), Phase::Loading);
        for (enter, then) in [
            (Phase::Examining, Phase::Examining),
            (Phase::Draining, Phase::Draining),
            (Phase::Ready, Phase::Draining),
            (Phase::Unfit, Phase::Unfit),
        ] {
            health.clone().enter(enter);
            assert_eq!((health.phase(), health.phase().alive()), (then, then != Phase::Unfit));
        }
    }
}
