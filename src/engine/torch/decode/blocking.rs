//! Decoding where nothing else can be done meanwhile.

use std::time::{Duration, Instant};

use tch::{Cuda, Device, TchError, Tensor};

use crate::engine::torch::device::async_work::{AsyncDecoder, PendingDecode};

/// Does all of the work when it is begun.
#[derive(Debug)]
pub(super) struct BlockingDecoder(pub(super) Device);

#[derive(Debug)]
struct Done {
    bytes: Tensor,
    time: Duration,
}

impl AsyncDecoder for BlockingDecoder {
    fn begin(&self, work: &dyn Fn() -> Result<Tensor, TchError>) -> Result<Box<dyn PendingDecode>, TchError> {
        if let Device::Cuda(number) = self.0 {
            // So that the time of the evaluations still under way is not counted here.
            Cuda::synchronize(number as i64);
        }
        let began = Instant::now();
        let bytes = work()?.f_to_device(Device::Cpu)?;
        Ok(Box::new(Done { bytes, time: began.elapsed() }))
    }
}

impl PendingDecode for Done {
    fn is_done(&self) -> Result<bool, TchError> {
        Ok(true)
    }

    fn finish(&self) -> Result<(Tensor, Duration), TchError> {
        Ok((self.bytes.shallow_clone(), self.time))
    }
}
