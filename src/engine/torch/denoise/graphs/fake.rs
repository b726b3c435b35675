//! Graph capture for tests, on any device: the work is remembered and done again at each replay.

use std::cell::Cell;
use std::rc::Rc;

use tch::{TchError, Tensor};

use crate::engine::torch::device::async_work::{CapturedGraph, Evaluation, GraphCapture};

/// Remembers work. What a graph gives lies in the same memory each time, and is no number before the first replay, as on a GPU.
#[derive(Debug, Default)]
pub struct FakeCapture {
    counters: Rc<CaptureCounters>,
}

/// What became of a [`FakeCapture`], and what shall become of it.
#[derive(Debug, Default)]
pub struct CaptureCounters {
    /// Recordings made.
    pub recorded: Cell<u32>,
    /// Replays of all recordings.
    pub replayed: Cell<u32>,
    /// Recordings that were dropped.
    pub dropped: Cell<u32>,
    /// Whether to fail to record.
    pub refuse: Cell<bool>,
    /// How many replays shall run out of memory.
    pub starve: Cell<u32>,
}

impl FakeCapture {
    /// One that tells `counters`.
    pub fn new(counters: &Rc<CaptureCounters>) -> Self {
        Self { counters: Rc::clone(counters) }
    }
}

impl CaptureCounters {
    /// Recordings that there are.
    pub fn alive(&self) -> u32 {
        self.recorded.get() - self.dropped.get()
    }
}

impl GraphCapture for FakeCapture {
    fn capture(&self, work: Evaluation) -> Result<Box<dyn CapturedGraph>, TchError> {
        if self.counters.refuse.get() {
            return Err(TchError::Torch("the fake refuses".into()));
        }
        let mut output = work()?;
        let _ = output.f_fill_(f64::NAN)?;
        self.counters.recorded.update(|count| count + 1);
        Ok(Box::new(Remembered { work, output, counters: Rc::clone(&self.counters) }))
    }
}

struct Remembered {
    work: Evaluation,
    output: Tensor,
    counters: Rc<CaptureCounters>,
}

impl std::fmt::Debug for Remembered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remembered").field("output", &self.output).finish_non_exhaustive()
    }
}

impl CapturedGraph for Remembered {
    fn replay(&self) -> Result<Tensor, TchError> {
        if let Some(left) = self.counters.starve.get().checked_sub(1) {
            self.counters.starve.set(left);
            return Err(TchError::Torch("CUDA out of memory, says the fake".into()));
        }
        self.counters.replayed.update(|count| count + 1);
        let mut output = self.output.shallow_clone();
        output.f_copy_(&(self.work)()?)?;
        Ok(output)
    }
}

impl Drop for Remembered {
    fn drop(&mut self) {
        self.counters.dropped.update(|count| count + 1);
    }
}
