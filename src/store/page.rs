//! A part of many jobs.

use crate::queue::{JobState, Record};

/// Which jobs are on a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageQuery {
    /// Those that stand so: first all of the first state, as they stand in line, then those of the next.
    pub states: Vec<JobState>,
    /// Jobs before the page.
    pub offset: usize,
    /// Jobs of the page at most.
    pub limit: usize,
}

/// Jobs of a page.
#[derive(Debug, Clone, PartialEq)]
pub struct JobPage {
    /// They themselves.
    pub jobs: Vec<Record>,
    /// How many there are on all pages.
    pub total: usize,
}

/// A part of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) state: JobState,
    pub(super) offset: usize,
    /// At least one.
    pub(super) limit: usize,
}

impl PageQuery {
    /// The parts of lines that make the page, where each state of [`PageQuery::states`] has so many jobs.
    pub(super) fn slices(&self, counts: &[usize]) -> Vec<Slice> {
        let (mut skip, mut left, mut slices) = (self.offset, self.limit, Vec::new());
        for (&state, &count) in self.states.iter().zip(counts) {
            let offset = skip.min(count);
            let limit = left.min(count - offset);
            if limit > 0 {
                slices.push(Slice { state, offset, limit });
            }
            (skip, left) = (skip - offset, left - limit);
        }
        slices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_goes_on_from_one_state_to_the_next() {
        let states = vec![JobState::InProgress, JobState::InQueue, JobState::Failed];
        let slices = |offset, limit| {
            let slices = PageQuery { states: states.clone(), offset, limit }.slices(&[2, 0, 3]);
            slices.into_iter().map(|slice| (slice.state, slice.offset, slice.limit)).collect::<Vec<_>>()
        };
        assert_eq!(slices(1, 3), [(JobState::InProgress, 1, 1), (JobState::Failed, 0, 2)]);
        assert_eq!(slices(3, 9), [(JobState::Failed, 1, 2)]);
        assert_eq!((slices(5, 9), slices(0, 0)), (vec![], vec![]));
    }
}
