//! That there is no room for new jobs is told once, and not at each job.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether it was told.
#[derive(Debug, Default)]
pub(super) struct SpaceWarning(AtomicBool);

impl SpaceWarning {
    /// There is no room. Returns whether that is news.
    pub(super) fn report_full(&self, why: &str) -> bool {
        let is_news = !self.0.swap(true, Ordering::Relaxed);
        if is_news {
            tracing::error!("no new jobs are taken: {why}");
        }
        is_news
    }

    /// A new job has found room. Returns whether that is news.
    pub(super) fn report_space(&self) -> bool {
        let is_news = self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed);
        if is_news {
            tracing::info!("there is room for new jobs again");
        }
        is_news
    }
}
