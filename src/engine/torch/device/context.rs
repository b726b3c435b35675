//! Where an engine's numbers live, how they get there, and how far the engine may be ahead of what its device has done.

use std::rc::Rc;
use std::sync::Arc;

use tch::kind::Element;
use tch::{Cuda, Device, Tensor};

use super::cuda::{Gpu, Usage};
use crate::engine::torch::error::Forward;
use crate::noise::TorchRng;

/// A device, with a stream of its own on a GPU if the CUDA helper is there.
#[derive(Debug, Clone)]
pub(in crate::engine::torch) struct DeviceContext {
    device: Device,
    gpu: Option<Rc<Gpu>>,
    /// Whether parts of a model lie in main memory until they are used.
    offloads: bool,
}

impl DeviceContext {
    /// `device`, by what libtorch's C interface offers.
    pub(in crate::engine::torch) fn plain(device: Device) -> Self {
        Self { device, gpu: None, offloads: false }
    }

    /// A GPU that this thread has entered.
    pub(in crate::engine::torch) fn on(gpu: Rc<Gpu>, device: Device) -> Self {
        Self { device, gpu: Some(gpu), offloads: false }
    }

    /// The same for a model that the device cannot hold as a whole: each of its parts goes to main memory when it is loaded.
    #[must_use]
    pub(in crate::engine::torch) fn with_offload(self) -> Self {
        Self { offloads: true, ..self }
    }

    /// Whether each part of a model goes to main memory when it is loaded.
    pub(in crate::engine::torch) fn offloads(&self) -> bool {
        self.offloads
    }

    /// Where it is.
    pub(in crate::engine::torch) fn device(&self) -> Device {
        self.device
    }

    /// Waits until the device has done all that it was given, on any stream.
    pub(in crate::engine::torch) fn wait_for_all(&self) {
        if let Device::Cuda(number) = self.device {
            Cuda::synchronize(number as i64);
        }
    }

    /// Gives back memory of the device that no tensor uses, where the helper is there.
    pub(in crate::engine::torch) fn trim(&self) {
        if let Some(gpu) = &self.gpu {
            gpu.trim();
        }
    }

    /// Counts what is made use of there, if the CUDA helper is.
    pub(in crate::engine::torch) fn usage(&self) -> Option<Arc<Usage>> {
        self.gpu.as_ref().map(|gpu| gpu.usage())
    }

    /// `values` in `shape`, there. The one way for whatever a job brings: a plain copy would wait until the device has nothing else to do.
    pub(in crate::engine::torch) fn upload<T: Element>(&self, values: &[T], shape: &[i64]) -> Forward {
        match &self.gpu {
            // Not from memory that the device cannot reach by itself: it would have to be done with everything else first.
            Some(gpu) => gpu.upload(values)?.f_reshape(shape),
            None => Tensor::f_from_slice(values)?.f_reshape(shape)?.f_to_device(self.device),
        }
    }

    /// `weight`, which lies in main memory without gaps, there; the same tensor if that is where it is.
    pub(in crate::engine::torch) fn upload_weight(&self, weight: &Tensor) -> Forward {
        match &self.gpu {
            Some(gpu) => gpu.upload_weight(weight),
            None => weight.f_to_device(self.device),
        }
    }

    /// Standard normals, drawn on the CPU as in the reference, there.
    pub(in crate::engine::torch) fn draw(&self, noise: &mut TorchRng, shape: &[i64]) -> Forward {
        let count: i64 = shape.iter().product();
        self.upload(&noise.randn(count as usize), shape)
    }

    /// An evaluation was given to the device. A GPU works while we go on; here is where we wait, so that it is at most one evaluation
    /// behind: a job that comes joins the next but one, and what is told of progress is true.
    pub(in crate::engine::torch) fn throttle(&self) -> Forward<()> {
        match (&self.gpu, self.device) {
            (Some(gpu), _) => gpu.throttle(),
            (None, Device::Cuda(number)) => {
                Cuda::synchronize(number as i64);
                Ok(())
            }
            (None, _) => Ok(()),
        }
    }

    /// Waits until the last evaluation is done, where the helper is there.
    pub(in crate::engine::torch) fn synchronize(&self) -> Forward<()> {
        self.gpu.as_ref().map_or(Ok(()), |gpu| gpu.synchronize())
    }
}
