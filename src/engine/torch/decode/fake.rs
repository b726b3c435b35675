//! A darkroom for tests, on any device: its pictures are there later than they are begun.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tch::{TchError, Tensor};

use crate::engine::torch::device::async_work::{Darkroom, Development};

/// Does the work when it is begun, and hands it out when it was looked for often enough or is waited for.
#[derive(Debug, Default)]
pub struct Fake {
    told: Rc<Told>,
}

/// What became of a [`Fake`], and what shall become of it.
#[derive(Debug, Default)]
pub struct Told {
    /// Looks at a picture until it is done.
    pub looks: Cell<u32>,
    /// Pictures begun.
    pub begun: Cell<u32>,
    /// Pictures that were let go of.
    pub dropped: Cell<u32>,
    /// Pictures under way at the same time, at most.
    pub most: Cell<u32>,
    /// Pictures that were waited for before they were done.
    pub waited: Cell<u32>,
    /// How many beginnings shall run out of memory.
    pub starve: Cell<u32>,
    /// Whether pictures shall come out with values that are no numbers.
    pub spoil: Cell<bool>,
    /// Whether the device shall be lost.
    pub lose: Cell<bool>,
}

impl Fake {
    /// One that tells `told`.
    pub fn new(told: &Rc<Told>) -> Self {
        Self { told: Rc::clone(told) }
    }
}

impl Told {
    /// Pictures that there are.
    pub fn alive(&self) -> u32 {
        self.begun.get() - self.dropped.get()
    }
}

impl Darkroom for Fake {
    fn begin(&self, work: &dyn Fn() -> Result<Tensor, TchError>) -> Result<Box<dyn Development>, TchError> {
        let told = &self.told;
        if let Some(left) = told.starve.get().checked_sub(1) {
            told.starve.set(left);
            return Err(TchError::Torch("CUDA out of memory, says the fake".into()));
        }
        let bytes = work()?;
        if told.spoil.get() {
            let _ = bytes.f_narrow(0, -1, 1)?.f_fill_(0)?;
        }
        told.begun.update(|count| count + 1);
        told.most.set(told.most.get().max(told.alive()));
        Ok(Box::new(Slow { bytes, looks: Cell::new(told.looks.get()), told: Rc::clone(told) }))
    }
}

#[derive(Debug)]
struct Slow {
    bytes: Tensor,
    /// Still to come.
    looks: Cell<u32>,
    told: Rc<Told>,
}

impl Development for Slow {
    fn is_done(&self) -> Result<bool, TchError> {
        let left = self.looks.get();
        self.looks.set(left.saturating_sub(1));
        Ok(left == 0)
    }

    fn finish(&self) -> Result<(Tensor, Duration), TchError> {
        if self.told.lose.get() {
            return Err(TchError::Torch("CUDA error: lost, says the fake".into()));
        }
        if self.looks.replace(0) > 0 {
            self.told.waited.update(|count| count + 1);
        }
        Ok((self.bytes.shallow_clone(), Duration::from_millis(1)))
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.told.dropped.update(|count| count + 1);
    }
}
