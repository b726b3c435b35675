//! Pictures on a stream of their own.

use std::rc::Rc;
use std::time::Duration;

use tch::{Device, Kind, Tensor};

use super::Gpu;
use super::helper::CudaEvent;
use crate::engine::torch::device::async_work::{AsyncDecoder, PendingDecode};
use crate::engine::torch::error::Forward;

/// What is made on a stream and let go of while the stream is at it serves no other tensor before, for libtorch keeps memory by stream. So
/// only what another stream made, which is the latents, must be kept until the end.
impl AsyncDecoder for Rc<Gpu> {
    fn begin(&self, work: &dyn Fn() -> Forward) -> Forward<Box<dyn PendingDecode>> {
        let (begin, end) = (CudaEvent::new(&self.helper)?, CudaEvent::new(&self.helper)?);
        // After the evaluations so far, and no others.
        begin.record(&self.stream)?;
        begin.wait(&self.decode_stream)?;
        let bytes = self.decode_stream.run(&self.stream, || {
            begin.record(&self.decode_stream)?;
            // What is not waited for goes to memory that the device reaches by itself.
            let bytes = work()?.f_to_device_(Device::Cpu, Kind::Uint8, true, false)?;
            end.record(&self.decode_stream)?;
            Ok(bytes)
        })?;
        Ok(Box::new(StreamDecode { bytes, begin, end }))
    }
}

/// A picture on its way.
#[derive(Debug)]
struct StreamDecode {
    bytes: Tensor,
    begin: CudaEvent,
    end: CudaEvent,
}

impl PendingDecode for StreamDecode {
    fn is_done(&self) -> Forward<bool> {
        self.end.query()
    }

    fn finish(&self) -> Forward<(Tensor, Duration)> {
        self.end.synchronize()?;
        Ok((self.bytes.shallow_clone(), self.begin.elapsed(&self.end)?))
    }
}

impl Drop for StreamDecode {
    fn drop(&mut self) {
        // An error would be the device's, which the next call of anybody is told of.
        let _ = self.end.synchronize();
    }
}
