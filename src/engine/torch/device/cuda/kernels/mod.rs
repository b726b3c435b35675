//! Kernels of our own, which `native/kernels.cu` becomes: found in the helper, and called for tensors of this thread's GPU.

mod check;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;

use libloading::os::unix::Library;
use tch::{Device, TchError, Tensor};
use torch_sys::C_tensor;

use super::usage::Usage;
use crate::engine::torch::error::Forward;

type Status = c_int;
type Handle = *mut c_void;
type Given = *const C_tensor;

thread_local! {
    static KERNELS: RefCell<Option<Rc<Kernels>>> = const { RefCell::new(None) };
}

/// The kernels that suit where `x` is, if this thread has any.
pub(in crate::engine::torch) fn suiting(x: &Tensor) -> Option<Rc<Kernels>> {
    KERNELS.with_borrow(|kernels| kernels.as_ref().filter(|kernels| kernels.device == x.device()).map(Rc::clone))
}

/// This thread's modules use the kernels until this is dropped.
#[derive(Debug)]
pub(in crate::engine::torch) struct KernelsInUse(());

impl Drop for KernelsInUse {
    fn drop(&mut self) {
        KERNELS.set(None);
    }
}

/// `native/fused.cpp` says what they do.
#[derive(Debug, Clone, Copy)]
pub(super) struct KernelFunctions {
    error: unsafe extern "C" fn() -> *const c_char,
    group_norm: unsafe extern "C" fn(Given, Given, Given, Given, Given, i64, f64, c_int, *mut Handle) -> Status,
    add_layer_norm: unsafe extern "C" fn(Given, Given, Given, Given, f64, *mut Handle) -> Status,
    geglu: unsafe extern "C" fn(Given, *mut Handle) -> Status,
    add_residual: unsafe extern "C" fn(Given, Given, Given, Given, *mut Handle) -> Status,
}

impl KernelFunctions {
    /// Those of a helper that was built with kernels.
    ///
    /// # Safety
    /// `library` must be a build of `native/fused.cpp` of this interface, and never be closed.
    #[expect(unsafe_code, reason = "a symbol has the type that is said here")]
    pub(super) unsafe fn of(library: &Library) -> Result<Self, libloading::Error> {
        // SAFETY: the caller's promise; the types above are those of the interface.
        unsafe {
            Ok(Self {
                error: *library.get(b"latentd_cuda_error\0")?,
                group_norm: *library.get(b"latentd_cuda_group_norm\0")?,
                add_layer_norm: *library.get(b"latentd_cuda_add_layer_norm\0")?,
                geglu: *library.get(b"latentd_cuda_geglu\0")?,
                add_residual: *library.get(b"latentd_cuda_add_residual\0")?,
            })
        }
    }
}

/// The kernels for tensors on a device. Each gives `None` for tensors that it is not for.
#[derive(Debug)]
pub(in crate::engine::torch) struct Kernels {
    device: Device,
    functions: KernelFunctions,
    usage: Option<Arc<Usage>>,
}

/// A normalisation over groups of channels, and what belongs to it.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine::torch) struct Norm<'a> {
    /// `[channels]`, as all of these.
    pub(in crate::engine::torch) weight: &'a Tensor,
    pub(in crate::engine::torch) bias: &'a Tensor,
    pub(in crate::engine::torch) groups: i64,
    pub(in crate::engine::torch) epsilon: f64,
    /// Added to the image before: the bias of what made it.
    pub(in crate::engine::torch) input_bias: Option<&'a Tensor>,
    /// Added before, too; `[batch, channels]`.
    pub(in crate::engine::torch) time_shift: Option<&'a Tensor>,
    /// Whether `SiLU` comes after.
    pub(in crate::engine::torch) silu: bool,
}

impl Kernels {
    pub(super) fn new(functions: KernelFunctions, device: Device) -> Self {
        Self { device, functions, usage: None }
    }

    /// The same, of which `usage` counts the calls.
    pub(super) fn counted(self, usage: &Arc<Usage>) -> Self {
        Self { usage: Some(Arc::clone(usage)), ..self }
    }

    /// Has this thread's modules use them.
    pub(in crate::engine::torch) fn install(self) -> KernelsInUse {
        KERNELS.set(Some(Rc::new(self)));
        KernelsInUse(())
    }

    /// [`Norm`] of an image `[batch, channels, height, width]`.
    #[expect(unsafe_code, reason = "a call into the helper")]
    pub(in crate::engine::torch) fn group_norm(&self, x: &Tensor, norm: Norm) -> Forward<Option<Tensor>> {
        let Norm { weight, bias, groups, epsilon, input_bias, time_shift, silu } = norm;
        let (input_bias, time_shift, silu) = (given(input_bias), given(time_shift), c_int::from(silu));
        // SAFETY: the tensors live as long as the call.
        self.made_one(|made| unsafe {
            (self.functions.group_norm)(
                x.as_ptr(),
                input_bias,
                time_shift,
                weight.as_ptr(),
                bias.as_ptr(),
                groups,
                epsilon,
                silu,
                made,
            )
        })
    }

    /// `x + more`, `[..., channels]` both, and the normalisation of that over the last dimension.
    #[expect(unsafe_code, reason = "a call into the helper")]
    pub(in crate::engine::torch) fn add_layer_norm(
        &self,
        (x, more): (&Tensor, &Tensor),
        (weight, bias): (&Tensor, &Tensor),
        epsilon: f64,
    ) -> Forward<Option<[Tensor; 2]>> {
        let call = self.functions.add_layer_norm;
        // SAFETY: as above.
        self.made(|made| unsafe { call(x.as_ptr(), more.as_ptr(), weight.as_ptr(), bias.as_ptr(), epsilon, made) })
    }

    /// The first half of the last dimension times the GELU of the second.
    #[expect(unsafe_code, reason = "a call into the helper")]
    pub(in crate::engine::torch) fn geglu(&self, x: &Tensor) -> Forward<Option<Tensor>> {
        // SAFETY: as above.
        self.made_one(|made| unsafe { (self.functions.geglu)(x.as_ptr(), made) })
    }

    /// `y`, to which the biases, `[channels]`, and `x` are added; images like [`Self::group_norm`]'s.
    #[expect(unsafe_code, reason = "a call into the helper")]
    pub(in crate::engine::torch) fn add_residual(
        &self,
        y: &Tensor,
        x: Option<&Tensor>,
        bias: &Tensor,
        other: Option<&Tensor>,
    ) -> Forward<Option<Tensor>> {
        let (x, other) = (given(x), given(other));
        // SAFETY: as above.
        self.made_one(|made| unsafe { (self.functions.add_residual)(y.as_ptr(), x, bias.as_ptr(), other, made) })
    }

    fn made_one(&self, call: impl FnOnce(*mut Handle) -> Status) -> Forward<Option<Tensor>> {
        Ok(self.made(call)?.map(|[made]| made))
    }

    /// What a call made, if the tensors suit it: all of as many as it makes, or none.
    #[expect(unsafe_code, reason = "a tensor that the helper made")]
    fn made<const N: usize>(&self, call: impl FnOnce(*mut Handle) -> Status) -> Forward<Option<[Tensor; N]>> {
        let mut made = [ptr::null_mut(); N];
        if call(made.as_mut_ptr()) != 0 {
            // SAFETY: a text of this thread's, which stays until its next call fails.
            let text = unsafe { CStr::from_ptr((self.functions.error)()) };
            return Err(TchError::Torch(text.to_string_lossy().into_owned()));
        }
        let there = made.iter().all(|made| !made.is_null());
        if let (Some(usage), true) = (&self.usage, there) {
            usage.called_a_kernel();
        }
        // SAFETY: tensors on the heap, as torch-sys has them, and not shared.
        Ok(there.then(|| made.map(|made| unsafe { Tensor::from_ptr(made.cast()) })))
    }
}

fn given(tensor: Option<&Tensor>) -> Given {
    tensor.map_or(ptr::null(), Tensor::as_ptr)
}
