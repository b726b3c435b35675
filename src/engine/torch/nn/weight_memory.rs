//! Where a weight lies: on its device, or, while another part of the model needs the room there, in main memory.

use std::cell::{OnceCell, Ref, RefCell, RefMut};

use tch::{Device, Tensor};

use crate::engine::torch::error::Forward;

/// A weight's tensor, which can leave its device and come back. Clones of a weight share it.
#[derive(Debug)]
pub(in crate::engine::torch) struct WeightMemory {
    tensor: RefCell<Tensor>,
    /// The same numbers in main memory that a GPU reaches by itself, made when the weight first leaves it. A weight never changes after that.
    host: OnceCell<Tensor>,
}

impl WeightMemory {
    pub(super) fn new(tensor: Tensor) -> Self {
        Self { tensor: RefCell::new(tensor), host: OnceCell::new() }
    }

    /// Where it is now.
    pub(super) fn tensor(&self) -> Ref<'_, Tensor> {
        self.tensor.borrow()
    }

    pub(super) fn tensor_mut(&self) -> RefMut<'_, Tensor> {
        self.tensor.borrow_mut()
    }

    /// Which device it is on, or the CPU while it is in main memory.
    pub(in crate::engine::torch) fn device(&self) -> Device {
        self.tensor().device()
    }

    /// Bytes of its numbers.
    pub(in crate::engine::torch) fn bytes(&self) -> usize {
        let tensor = self.tensor();
        tensor.numel() * tensor.kind().elt_size_in_bytes()
    }

    /// Moves it to main memory, if it is on a GPU. Nothing that the GPU does on another stream may still read it.
    ///
    /// # Errors
    /// The device's, or there is no such memory.
    pub(in crate::engine::torch) fn offload(&self) -> Forward<()> {
        let mut tensor = self.tensor_mut();
        if tensor.device() == Device::Cpu {
            return Ok(());
        }
        let host = if let Some(host) = self.host.get() {
            host
        } else {
            // What is not waited for comes to memory that the device reaches by itself.
            let host = tensor.f_to_device_(Device::Cpu, tensor.kind(), true, false)?;
            self.host.get_or_init(|| host)
        };
        *tensor = host.shallow_clone();
        Ok(())
    }

    /// Moves it to `device`, where it may be already. It is there for whatever the device is given later on this thread's stream.
    ///
    /// # Errors
    /// The device's, or it has no memory.
    pub(in crate::engine::torch) fn onload(&self, device: Device) -> Forward<()> {
        let mut tensor = self.tensor_mut();
        if tensor.device() != device {
            *tensor = tensor.f_to_device_(device, tensor.kind(), true, false)?;
        }
        Ok(())
    }
}
