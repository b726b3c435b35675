// What libtorch does in several passes over memory, in as few as there can be: a GPU that waits for memory is idle. Images keep their
// channels last, where libtorch's own normalisation puts them first, and the next convolution last again.

#include "kernels.h"

#include "group_norm.cuh"
#include "layer_norm.cuh"
#include "plain.cuh"

#define BY_KIND(kind, otherwise, function, ...)                                                                                            \
  switch (kind) {                                                                                                                          \
  case F16:                                                                                                                                \
    return function<f16>(__VA_ARGS__);                                                                                                     \
  case F32:                                                                                                                                \
    return function<float>(__VA_ARGS__);                                                                                                   \
  case BF16:                                                                                                                               \
    return function<bf16>(__VA_ARGS__);                                                                                                    \
  }                                                                                                                                        \
  return otherwise

namespace {

constexpr int UNKNOWN = 1; // cudaErrorInvalidValue

}

int64_t latentd_kernel_partials(const Image *image, int64_t groups) { BY_KIND(image->kind, -1, partials, *image, groups); }

int latentd_kernel_group_norm(const GroupNorm *norm, void *stream) { BY_KIND(norm->image.kind, UNKNOWN, group_norm, *norm, stream); }

int latentd_kernel_add_layer_norm(const AddLayerNorm *norm, void *stream) {
  BY_KIND(norm->kind, UNKNOWN, add_layer_norm, *norm, stream);
}

int latentd_kernel_geglu(const Image *image, const void *x, void *y, void *stream) {
  BY_KIND(image->kind, UNKNOWN, geglu, *image, x, y, stream);
}

int latentd_kernel_add_residual(const Image *image, const void *x, const void *bias, const void *other, void *y, void *stream) {
  BY_KIND(image->kind, UNKNOWN, add_residual, *image, x, bias, other, y, stream);
}
