// What kernels.cu offers. Images are [rows, pixels, channels] in memory, channels last; `channels` is a multiple of 8, and every pointer
// one of 16 bytes. Functions give CUDA's status, 0 for well; kinds are numbered as libtorch numbers its scalar types.

#pragma once

#include <cstdint>

enum Kind : int32_t { F16 = 5, F32 = 6, BF16 = 15 };

struct Image {
  int64_t rows, pixels, channels;
  Kind kind;
};

// y = act((x' - mean) / sqrt(variance + epsilon) * weight + bias) over groups of channels, x' = x + lead + shift, act = SiLU or nothing.
struct GroupNorm {
  Image image;
  const void *x;
  const void *lead;         // [channels] or none: the bias of what made x
  const void *shift;        // [rows, channels] or none, each row `shift_stride` numbers behind the last; need not be aligned
  int64_t shift_stride;
  const void *weight, *bias; // [channels]
  void *y;
  float *partial;           // [partials(image, groups)]
  int64_t groups;
  float epsilon;
  int32_t silu;
};

extern "C" {

// Floats that `GroupNorm::partial` must have; 0 if the image is not for this kernel.
int64_t latentd_kernel_partials(const Image *image, int64_t groups);

int latentd_kernel_group_norm(const GroupNorm *norm, void *stream);

// y[rows, channels] = x[rows, 0..channels] * GELU(x[rows, channels..2 channels]), GELU by the error function; `pixels` is 1.
int latentd_kernel_geglu(const Image *image, const void *x, void *y, void *stream);

// y += x + bias[channels] + other[channels]; `other` may be none.
int latentd_kernel_join(const Image *image, const void *x, const void *bias, const void *other, void *y, void *stream);
}
