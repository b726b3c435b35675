//! oneDNN, the library that libtorch multiplies with on a CPU, called with weights in its own order. libtorch's public
//! operators bring a weight into that order at every call; the operators that take it as it is have no binding in tch, but a
//! C interface, which libtorch keeps for the code that its compiler writes (`torch/csrc/inductor/aoti_torch/c`, 2.11).

use std::ffi::{CStr, c_char};
use std::ptr;

use tch::{Device, Kind, TchError, Tensor};

use super::{ConvParams, Forward};
use crate::engine::torch::device::layout::channels_last;
use crate::engine::torch::device::target::multiplies_bf16;

/// A tensor of libtorch's C++ library: a pointer that tch's own is, too.
type Handle = *mut tch_tensor;
#[expect(non_camel_case_types, reason = "a type of C++ that nobody here looks into")]
enum tch_tensor {}

/// Of a matrix: smaller ones gain nothing.
const SMALLEST_MATRIX: usize = 1 << 18;

/// Whether `weight` is in oneDNN's order.
pub(super) fn is_packed(weight: &Tensor) -> bool {
    weight.is_mkldnn()
}

/// Whether `weight`, a matrix `[outputs, inputs]` or a kernel `[outputs, inputs, height, width]`, gains by it.
pub(super) fn can_pack(weight: &Tensor) -> bool {
    let kind = weight.kind();
    cfg!(target_arch = "x86_64")
        && weight.device() == Device::Cpu
        && (kind == Kind::Float || kind == Kind::BFloat16 && multiplies_bf16())
        && (weight.dim() == 4 || weight.numel() >= SMALLEST_MATRIX)
        && !is_packed(weight)
}

/// A kernel in the order that is best for images of `shape`; others are right, too.
pub(super) fn pack_kernel(weight: &Tensor, params: ConvParams, shape: &[i64]) -> Forward {
    let ConvParams { stride, padding, .. } = params;
    weight.f_contiguous()?.f_to_mkldnn(None)?.f_mkldnn_reorder_conv2d_weight(
        [padding; 2],
        [stride; 2],
        [1; 2],
        1,
        shape,
    )
}

/// A matrix in the order that is best for most numbers of rows.
pub(super) fn pack_matrix(weight: &Tensor) -> Forward {
    let name = c"mkldnn::_reorder_linear_weight";
    // An operator's arguments, and its result at the place of the first: a tensor, which it takes over, and an absent number of rows.
    let mut stack = [given_away(weight) as u64, 0];
    // SAFETY: the operator's schema is (Tensor self, SymInt? batch_size=None) -> Tensor, and the stack holds just that.
    #[expect(unsafe_code, reason = "libtorch's C interface")]
    let status = unsafe { aoti_torch_call_dispatcher(name.as_ptr(), c"".as_ptr(), stack.as_mut_ptr()) };
    taken(status, stack[0] as Handle, name)
}

/// What was packed, in the usual order again: the same numbers.
pub(super) fn unpack(weight: &Tensor) -> Forward {
    weight.f_to_dense(None, false)
}

/// `x` convolved with a packed kernel.
pub(super) fn convolve(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, params: ConvParams) -> Forward {
    let (_, _, height, width) = x.size4()?;
    let narrow = width + 2 * params.padding - params.kernel < params.stride;
    if narrow && height > 1 && x.kind() == Kind::BFloat16 {
        // What oneDNN 3.10.2 gives with AMX for stride 2 and such an image is garbage (findings/onednn-amx-conv-one-pixel-wide.sh). Further
        // columns of zeros, whose results are dropped, change nothing of the first: they are where the padding was.
        let wider = x.f_constant_pad_nd([0, params.stride])?;
        let wider = channels_last(&wider)?;
        return channels_last(&convolve_as_is(&wider, weight, bias, params)?.f_narrow(3, 0, 1)?);
    }
    convolve_as_is(x, weight, bias, params)
}

fn convolve_as_is(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, params: ConvParams) -> Forward {
    let (padding, stride, dilation) = ([params.padding; 2], [params.stride; 2], [1; 2]);
    call(c"mkldnn::_convolution_pointwise", bias, |bias, result| {
        // SAFETY: tensors live through the call, lists are as long as is said, and nothing is done afterwards ("none" takes no scalars).
        #[expect(unsafe_code, reason = "libtorch's C interface")]
        unsafe {
            aoti_torch_cpu_mkldnn__convolution_pointwise(
                handle(x),
                handle(weight),
                bias,
                padding.as_ptr(),
                2,
                stride.as_ptr(),
                2,
                dilation.as_ptr(),
                2,
                1,
                c"none".as_ptr(),
                ptr::null_mut(),
                0,
                ptr::null_mut(),
                result,
            )
        }
    })
}

/// `x Wᵀ + b` with a packed matrix.
pub(super) fn multiply(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Forward {
    call(c"mkldnn::_linear_pointwise", bias, |bias, result| {
        let (none, no_scalars, no_algorithm) = (c"none".as_ptr(), ptr::null_mut(), ptr::null_mut());
        // SAFETY: as in `convolve`.
        #[expect(unsafe_code, reason = "libtorch's C interface")]
        unsafe {
            aoti_torch_cpu__linear_pointwise(handle(x), handle(weight), bias, none, no_scalars, 0, no_algorithm, result)
        }
    })
}

/// `x Wᵀ + b + more` with a packed matrix, in one pass.
pub(super) fn multiply_add(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, more: &Tensor) -> Forward {
    call(c"mkldnn::_linear_pointwise.binary", bias, |bias, result| {
        let add = c"add".as_ptr();
        // SAFETY: as in `convolve`.
        #[expect(unsafe_code, reason = "libtorch's C interface")]
        unsafe {
            aoti_torch_cpu__linear_pointwise_binary(handle(x), handle(more), handle(weight), bias, add, result)
        }
    })
}

/// Has `work` call the operator `name` with a bias, a null pointer where there is none, and a place for its result.
fn call(name: &CStr, bias: Option<&Tensor>, work: impl FnOnce(*mut Handle, *mut Handle) -> i32) -> Forward {
    let mut bias = bias.map(handle);
    let mut result = ptr::null_mut();
    let status = work(bias.as_mut().map_or(ptr::null_mut(), ptr::from_mut), &raw mut result);
    taken(status, result, name)
}

/// For a call: the tensor stays ours.
fn handle(tensor: &Tensor) -> Handle {
    tensor.as_ptr() as Handle
}

/// For a callee that keeps it: a tensor of its own on the same memory.
fn given_away(tensor: &Tensor) -> Handle {
    let mut own = std::mem::ManuallyDrop::new(tensor.shallow_clone());
    own.as_mut_ptr().cast()
}

/// What a call gave.
fn taken(status: i32, result: Handle, name: &CStr) -> Forward {
    if status != 0 || result.is_null() {
        let name = name.to_string_lossy();
        return Err(TchError::Torch(format!("{name} failed; libtorch wrote why to stderr")));
    }
    // SAFETY: the callee made this tensor with `new` and gave it to us, as tch's own functions do.
    #[expect(unsafe_code, reason = "libtorch's C interface")]
    Ok(unsafe { Tensor::from_ptr(result.cast()) })
}

#[expect(unsafe_code, reason = "libtorch's C interface")]
unsafe extern "C" {
    fn aoti_torch_call_dispatcher(name: *const c_char, overload: *const c_char, stack: *mut u64) -> i32;
    fn aoti_torch_cpu_mkldnn__convolution_pointwise(
        x: Handle,
        weight: Handle,
        bias: *mut Handle,
        padding: *const i64,
        paddings: i64,
        stride: *const i64,
        strides: i64,
        dilation: *const i64,
        dilations: i64,
        groups: i64,
        afterwards: *const c_char,
        scalars: *mut *const f64,
        scalar_count: i64,
        algorithm: *mut *const c_char,
        result: *mut Handle,
    ) -> i32;
    fn aoti_torch_cpu__linear_pointwise(
        x: Handle,
        weight: Handle,
        bias: *mut Handle,
        afterwards: *const c_char,
        scalars: *mut *const f64,
        scalar_count: i64,
        algorithm: *mut *const c_char,
        result: *mut Handle,
    ) -> i32;
    fn aoti_torch_cpu__linear_pointwise_binary(
        x: Handle,
        more: Handle,
        weight: Handle,
        bias: *mut Handle,
        together: *const c_char,
        result: *mut Handle,
    ) -> i32;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engine::torch::device::layout::channels_last;

    const OPTIONS: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn difference(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn packed_kernels_compute_the_same_at_every_size() {
        for params in [ConvParams::SAME, ConvParams::HALVE, ConvParams::POINT] {
            let weight = Tensor::randn([24, 16, params.kernel, params.kernel], OPTIONS);
            let bias = Tensor::randn([24], OPTIONS);
            let packed = pack_kernel(&weight, params, &[2, 16, 8, 8]).unwrap();
            assert!(can_pack(&weight) && is_packed(&packed) && !can_pack(&packed));
            for (batch, side) in [(2, 8), (1, 8), (3, 20)] {
                let x = channels_last(&Tensor::randn([batch, 16, side, side], OPTIONS)).unwrap();
                let ConvParams { stride, padding, .. } = params;
                for bias in [Some(&bias), None] {
                    let plain = x.conv2d(&weight, bias, [stride; 2], [padding; 2], [1; 2], 1);
                    let ours = convolve(&x, &packed, bias, params).unwrap();
                    assert_eq!(ours.size(), plain.size());
                    assert!(difference(&ours, &plain) < 1e-4);
                    assert!(ours.permute([0, 2, 3, 1]).is_contiguous(), "channels stay last");
                }
            }
        }
    }

    #[test]
    fn images_one_pixel_wide_are_the_same_each_time() {
        if !multiplies_bf16() {
            return; // such kernels are not packed there
        }
        let (weight, bias) = (Tensor::randn([64, 64, 3, 3], OPTIONS) / 24, Tensor::randn([64], OPTIONS));
        let half = |x: &Tensor| x.to_kind(Kind::BFloat16);
        for (params, width) in [(ConvParams::SAME, 1), (ConvParams::HALVE, 2), (ConvParams::HALVE, 1)] {
            let packed = pack_kernel(&half(&weight), params, &[4, 64, 6, width]).unwrap();
            let x = channels_last(&half(&Tensor::randn([4, 64, 6, width], OPTIONS))).unwrap();
            let ConvParams { stride, padding, .. } = params;
            let plain = x.to_kind(Kind::Float).conv2d(&weight, Some(&bias), [stride; 2], [padding; 2], [1; 2], 1);
            let first = convolve(&x, &packed, Some(&half(&bias)), params).unwrap();
            assert_eq!(first.size(), plain.size());
            assert!(first.permute([0, 2, 3, 1]).is_contiguous(), "channels stay last");
            assert!(difference(&first.to_kind(Kind::Float), &plain) < 0.05);
            for _ in 0..8 {
                assert_eq!(convolve(&x, &packed, Some(&half(&bias)), params).unwrap(), first);
            }
        }
    }

    #[test]
    fn packed_matrices_compute_the_same() {
        let (weight, bias) = (Tensor::randn([512, 640], OPTIONS), Tensor::randn([512], OPTIONS));
        let packed = pack_matrix(&weight).unwrap();
        assert!(can_pack(&weight) && is_packed(&packed));
        for rows in [1, 7, 64] {
            let x = Tensor::randn([2, rows, 640], OPTIONS);
            let more = Tensor::randn([2, rows, 512], OPTIONS);
            for bias in [Some(&bias), None] {
                let plain = x.linear(&weight, bias);
                assert!(difference(&multiply(&x, &packed, bias).unwrap(), &plain) < 1e-3);
                assert!(difference(&multiply_add(&x, &packed, bias, &more).unwrap(), &(plain + &more)) < 1e-3);
            }
        }
    }

    #[test]
    fn unpacking_gives_the_same_bits() {
        let kernel = Tensor::randn([24, 16, 3, 3], OPTIONS);
        let matrix = Tensor::randn([512, 640], OPTIONS);
        let packed = pack_kernel(&kernel, ConvParams::SAME, &[2, 16, 8, 8]).unwrap();
        assert_eq!(unpack(&packed).unwrap(), kernel);
        assert_eq!(unpack(&pack_matrix(&matrix).unwrap()).unwrap(), matrix);
    }

    #[test]
    fn small_matrices_stay_as_they_are() {
        assert!(!can_pack(&Tensor::randn([64, 64], OPTIONS)));
        assert!(!can_pack(&Tensor::randn([1024, 1024], OPTIONS).to_kind(Kind::Double)));
    }

    #[test]
    fn a_wrong_shape_is_an_error_and_not_a_crash() {
        let packed = pack_matrix(&Tensor::randn([512, 640], OPTIONS)).unwrap();
        let fault = multiply(&Tensor::randn([3, 5], OPTIONS), &packed, None).unwrap_err();
        assert!(fault.to_string().contains("_linear_pointwise"), "{fault}");
    }
}
