//! Numbers on their way to a GPU: through pinned memory, which it reaches by itself, so that it copies while we go on.

use tch::Tensor;
use tch::kind::Element;

use super::Gpu;
use super::helper::CudaEvent;
use super::pinned_chunks::CHUNK_BYTES;
use crate::engine::torch::error::Forward;

impl Gpu {
    /// `values` on the GPU, `[count]`, without waiting for what it does now.
    #[expect(unsafe_code, reason = "numbers as the bytes that they are")]
    pub(in crate::engine::torch) fn upload<T: Element>(&self, values: &[T]) -> Forward {
        // SAFETY: elements of tensors are plain numbers, which have no byte that is none.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) };
        let there = Tensor::f_empty([values.len() as i64], (T::KIND, self.stream.device()))?;
        self.stream.upload(&there, 0, bytes, bytes.len())?;
        Ok(there)
    }

    /// `weight`, a tensor without gaps in main memory, on the GPU, in its own kind. Its memory may go when this returns.
    #[expect(unsafe_code, reason = "numbers as the bytes that they are")]
    pub(in crate::engine::torch) fn upload_weight(&self, weight: &Tensor) -> Forward {
        let there = Tensor::f_empty(weight.size(), (weight.kind(), self.stream.device()))?;
        let weight = weight.f_contiguous()?;
        let size = weight.numel() * weight.kind().elt_size_in_bytes();
        // SAFETY: so many bytes are there, for as long as the tensor is.
        let bytes = unsafe { std::slice::from_raw_parts(weight.data_ptr().cast::<u8>(), size) };
        self.chunks.borrow_mut().send(bytes, |offset, piece, before: Option<CudaEvent>| {
            let event = match before {
                Some(event) => event.synchronize().map(|()| event),
                None => CudaEvent::new(&self.helper),
            }?;
            self.stream.upload(&there, offset, piece, CHUNK_BYTES)?;
            event.record(&self.stream)?;
            Ok(event)
        })?;
        Ok(there)
    }
}
