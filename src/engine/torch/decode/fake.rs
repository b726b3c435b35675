//! A decoder for tests, on any device: its pictures are there later than they are begun.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tch::{TchError, Tensor};

use crate::engine::torch::device::async_work::{AsyncDecoder, PendingDecode};

/// Does the work when it is begun, and hands it out when it was looked for often enough or is waited for.
#[derive(Debug, Default)]
pub struct FakeDecoder {
    counters: Rc<DecodeCounters>,
}

/// What became of a [`FakeDecoder`], and what shall become of it.
#[derive(Debug, Default)]
pub struct DecodeCounters {
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

impl FakeDecoder {
    /// One that tells `counters`.
    pub fn new(counters: &Rc<DecodeCounters>) -> Self {
        Self { counters: Rc::clone(counters) }
    }
}

impl DecodeCounters {
    /// Pictures that there are.
    pub fn alive(&self) -> u32 {
        self.begun.get() - self.dropped.get()
    }
}

impl AsyncDecoder for FakeDecoder {
    fn begin(&self, work: &dyn Fn() -> Result<Tensor, TchError>) -> Result<Box<dyn PendingDecode>, TchError> {
        let counters = &self.counters;
        if let Some(left) = counters.starve.get().checked_sub(1) {
            counters.starve.set(left);
            return Err(TchError::Torch("CUDA out of memory, says the fake".into()));
        }
        let bytes = work()?;
        if counters.spoil.get() {
            let _ = bytes.f_narrow(0, -1, 1)?.f_fill_(0)?;
        }
        counters.begun.update(|count| count + 1);
        counters.most.set(counters.most.get().max(counters.alive()));
        Ok(Box::new(Slow { bytes, looks: Cell::new(counters.looks.get()), counters: Rc::clone(counters) }))
    }
}

#[derive(Debug)]
struct Slow {
    bytes: Tensor,
    /// Still to come.
    looks: Cell<u32>,
    counters: Rc<DecodeCounters>,
}

impl PendingDecode for Slow {
    fn is_done(&self) -> Result<bool, TchError> {
        let left = self.looks.get();
        self.looks.set(left.saturating_sub(1));
        Ok(left == 0)
    }

    fn finish(&self) -> Result<(Tensor, Duration), TchError> {
        if self.counters.lose.get() {
            return Err(TchError::Torch("CUDA error: lost, says the fake".into()));
        }
        if self.looks.replace(0) > 0 {
            self.counters.waited.update(|count| count + 1);
        }
        Ok((self.bytes.shallow_clone(), Duration::from_millis(1)))
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.counters.dropped.update(|count| count + 1);
    }
}
