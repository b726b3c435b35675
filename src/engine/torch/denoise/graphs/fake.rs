//! A recorder for tests, on any device: it remembers the work and does it anew at each replay.

use std::cell::Cell;
use std::rc::Rc;

use tch::{TchError, Tensor};

use crate::engine::torch::device::async_work::{Recorder, Recording, Work};

/// Remembers work. What a recording gives lies in the same memory each time, and is no number before the first replay, as on a GPU.
#[derive(Debug, Default)]
pub struct Fake {
    told: Rc<Told>,
}

/// What became of a [`Fake`], and what shall become of it.
#[derive(Debug, Default)]
pub struct Told {
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

impl Fake {
    /// One that tells `told`.
    pub fn new(told: &Rc<Told>) -> Self {
        Self { told: Rc::clone(told) }
    }
}

impl Told {
    /// Recordings that there are.
    pub fn alive(&self) -> u32 {
        self.recorded.get() - self.dropped.get()
    }
}

impl Recorder for Fake {
    fn record(&self, work: Work) -> Result<Box<dyn Recording>, TchError> {
        if self.told.refuse.get() {
            return Err(TchError::Torch("the fake refuses".into()));
        }
        let mut output = work()?;
        let _ = output.f_fill_(f64::NAN)?;
        self.told.recorded.update(|count| count + 1);
        Ok(Box::new(Remembered { work, output, told: Rc::clone(&self.told) }))
    }
}

struct Remembered {
    work: Work,
    output: Tensor,
    told: Rc<Told>,
}

impl std::fmt::Debug for Remembered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remembered").field("output", &self.output).finish_non_exhaustive()
    }
}

impl Recording for Remembered {
    fn replay(&self) -> Result<Tensor, TchError> {
        if let Some(left) = self.told.starve.get().checked_sub(1) {
            self.told.starve.set(left);
            return Err(TchError::Torch("CUDA out of memory, says the fake".into()));
        }
        self.told.replayed.update(|count| count + 1);
        let mut output = self.output.shallow_clone();
        output.f_copy_(&(self.work)()?)?;
        Ok(output)
    }
}

impl Drop for Remembered {
    fn drop(&mut self) {
        self.told.dropped.update(|count| count + 1);
    }
}
