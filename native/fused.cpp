// The kernels of kernels.cu on tensors. src/engine/torch/device/cuda/kernels/mod.rs is the only caller. A tensor that a kernel is not for is no error: no
// result is given, and the caller has libtorch's operators.
//
// With LATENTD_ON_PROCESSOR it is for tensors in main memory, as the tests use it.

#include <cstdint>
#include <initializer_list>

#include <ATen/ATen.h>

#ifndef LATENTD_ON_PROCESSOR
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

#include "guard.h"
#include "kernels.h"

namespace {

static_assert(F16 == static_cast<int>(at::kHalf) && F32 == static_cast<int>(at::kFloat) && BF16 == static_cast<int>(at::kBFloat16));

#ifdef LATENTD_ON_PROCESSOR

bool backwards = false;

template <typename Kernel> void give(const at::Tensor &, Kernel kernel) {
  TORCH_CHECK(kernel(backwards ? &backwards : nullptr) == 0, "a kernel refuses");
}

#else

// Has the current stream of the tensor's GPU run the kernel, which answers with CUDA's status.
template <typename Kernel> void give(const at::Tensor &where, Kernel kernel) {
  const c10::cuda::CUDAGuard guard(where.device());
  const auto status = static_cast<cudaError_t>(kernel(c10::cuda::getCurrentCUDAStream().stream()));
  TORCH_CHECK(status == cudaSuccess, "CUDA error: ", cudaGetErrorString(status));
}

#endif

// Whether kernels can read and write all of these as they lie in memory. `like` says in what numbers.
bool fits(const at::Tensor &like, std::initializer_list<const at::Tensor *> tensors) {
  const auto kind = like.scalar_type();
  bool fits = kind == at::kHalf || kind == at::kFloat || kind == at::kBFloat16;
  for (const auto *tensor : tensors) {
    fits = fits && (!tensor || (tensor->scalar_type() == kind && tensor->device() == like.device() &&
                                reinterpret_cast<std::uintptr_t>(tensor->const_data_ptr()) % 16 == 0));
  }
  return fits;
}

Image image(int64_t rows, int64_t pixels, int64_t channels, const at::Tensor &like) {
  return {rows, pixels, channels, static_cast<Kind>(like.scalar_type())};
}

Image image(const at::Tensor &x) { return image(x.size(0), x.size(2) * x.size(3), x.size(1), x); }

const void *data(const at::Tensor *tensor) { return tensor ? tensor->const_data_ptr() : nullptr; }

} // namespace

#ifdef LATENTD_ON_PROCESSOR
EXPORT const char *latentd_cuda_error() { return fault.c_str(); }

// Whether the threads of a block are to run from the last to the first.
EXPORT void latentd_cuda_backwards(int wanted) { backwards = wanted != 0; }
#endif

// Normalises `x` [rows, channels, height, width] with `lead` [channels] and `shift` [rows, channels] added, each if given.
EXPORT int latentd_cuda_group_norm(const at::Tensor *x, const at::Tensor *lead, const at::Tensor *shift, const at::Tensor *weight,
                                   const at::Tensor *bias, int64_t groups, double epsilon, int silu, void **made) {
  return guarded([&] {
    const Image its = image(*x);
    const auto partials = latentd_kernel_partials(&its, groups); // none for an image that takes one launch
    const bool shifts = !shift || (shift->scalar_type() == x->scalar_type() && shift->stride(1) == 1);
    if (partials < 0 || !shifts) {
      return;
    }
    const auto from = x->contiguous(at::MemoryFormat::ChannelsLast);
    if (!fits(*x, {&from, lead, weight, bias})) {
      return;
    }
    const auto y = at::empty_like(from);
    const auto partial = at::empty({partials}, x->options().dtype(at::kFloat));
    const GroupNorm norm{its, data(&from), data(lead), data(shift), shift ? shift->stride(0) : 0, data(weight), data(bias), y.mutable_data_ptr(),
                         partial.mutable_data_ptr<float>(), groups, static_cast<float>(epsilon), silu};
    give(*x, [&](void *stream) { return latentd_kernel_group_norm(&norm, stream); });
    *made = new at::Tensor(y);
  });
}

// Adds `more` to `x`, [..., width] both, and normalises the sum over its last dimension. Gives two tensors: the sum, and what it is normalised.
EXPORT int latentd_cuda_add_layer_norm(const at::Tensor *x, const at::Tensor *more, const at::Tensor *weight, const at::Tensor *bias, double epsilon,
                                       void **made) {
  return guarded([&] {
    const auto width = x->size(-1);
    const bool alike = x->sizes() == more->sizes() && weight->numel() == width && bias->numel() == width;
    if (!alike || width % 8 != 0 || width > MOST_WIDTH || x->numel() == 0 || x->numel() / width > INT32_MAX) {
      return;
    }
    const auto from = x->contiguous(), other = more->contiguous();
    if (!fits(*x, {&from, &other, weight, bias})) {
      return;
    }
    const auto sum = at::empty_like(from), y = at::empty_like(from);
    const AddLayerNorm norm{x->numel() / width, width, static_cast<Kind>(x->scalar_type()), data(&from), data(&other), data(weight), data(bias),
                            sum.mutable_data_ptr(), y.mutable_data_ptr(), static_cast<float>(epsilon)};
    give(*x, [&](void *stream) { return latentd_kernel_add_layer_norm(&norm, stream); });
    made[0] = new at::Tensor(sum);
    made[1] = new at::Tensor(y);
  });
}

// The first half of `x` [..., 2 * width] times the GELU of the second.
EXPORT int latentd_cuda_geglu(const at::Tensor *x, void **made) {
  return guarded([&] {
    const auto width = x->size(-1) / 2;
    if (x->size(-1) % 16 != 0 || x->numel() == 0 || x->numel() / 2 > MOST_NUMBERS) {
      return;
    }
    const auto from = x->contiguous();
    if (!fits(*x, {&from})) {
      return;
    }
    auto size = x->sizes().vec();
    size.back() = width;
    const auto y = at::empty(size, x->options());
    const Image its = image(y.numel() / width, 1, width, y);
    give(*x, [&](void *stream) { return latentd_kernel_geglu(&its, data(&from), y.mutable_data_ptr(), stream); });
    *made = new at::Tensor(y);
  });
}

// Adds `bias` and, if given, `x` and `other` to `y`: images [rows, channels, height, width], biases [channels]. Gives `y`.
EXPORT int latentd_cuda_add_residual(const at::Tensor *y, const at::Tensor *x, const at::Tensor *bias, const at::Tensor *other, void **made) {
  return guarded([&] {
    const auto from = x ? x->contiguous(at::MemoryFormat::ChannelsLast) : at::Tensor();
    x = x ? &from : nullptr;
    const bool lies = y->is_contiguous(at::MemoryFormat::ChannelsLast) && (!x || y->sizes() == x->sizes()) && y->size(1) % 8 == 0;
    if (!lies || y->numel() == 0 || y->numel() > MOST_NUMBERS || !fits(*y, {y, x, bias, other})) {
      return;
    }
    const Image its = image(*y);
    give(*y, [&](void *stream) {
      return latentd_kernel_add_residual(&its, data(x), data(bias), data(other), y->mutable_data_ptr(), stream);
    });
    *made = new at::Tensor(*y);
  });
}
