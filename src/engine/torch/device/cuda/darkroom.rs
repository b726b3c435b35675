//! Pictures on a stream of their own.

use std::rc::Rc;
use std::time::Duration;

use tch::{Device, Kind, Tensor};

use super::Gpu;
use super::helper::Mark;
use crate::engine::torch::device::async_work::{Darkroom, Development};
use crate::engine::torch::error::Forward;

/// What is made on a stream and let go of while the stream is at it serves nobody else before, for libtorch keeps memory by stream. So
/// only what another stream made, which is the latents, must be kept until the end.
impl Darkroom for Rc<Gpu> {
    fn begin(&self, work: &dyn Fn() -> Forward) -> Forward<Box<dyn Development>> {
        let (begin, end) = (Mark::new(&self.helper)?, Mark::new(&self.helper)?);
        // After the evaluations so far, and no others.
        begin.set(&self.stream)?;
        begin.hold(&self.beside)?;
        let bytes = self.beside.turn(&self.stream, || {
            begin.set(&self.beside)?;
            // What is not waited for goes to memory that the device reaches by itself.
            let bytes = work()?.f_to_device_(Device::Cpu, Kind::Uint8, true, false)?;
            end.set(&self.beside)?;
            Ok(bytes)
        })?;
        Ok(Box::new(Print { bytes, begin, end }))
    }
}

/// A picture on its way.
#[derive(Debug)]
struct Print {
    bytes: Tensor,
    begin: Mark,
    end: Mark,
}

impl Development for Print {
    fn is_done(&self) -> Forward<bool> {
        self.end.is_passed()
    }

    fn finish(&self) -> Forward<(Tensor, Duration)> {
        self.end.wait()?;
        Ok((self.bytes.shallow_clone(), self.begin.until(&self.end)?))
    }
}

impl Drop for Print {
    fn drop(&mut self) {
        // An error would be the device's, which the next call of anybody is told of.
        let _ = self.end.wait();
    }
}
