// What kernels.cu offers. Images are [rows, pixels, channels] in memory, channels last; `channels` is a multiple of 8, and every pointer
// one of 16 bytes. Functions give CUDA's status, 0 for well; kinds are numbered as libtorch numbers its scalar types.

#pragma once

#include <cstdint>

enum Kind : int32_t { F16 = 5, F32 = 6, BF16 = 15 };

struct Image {
  int64_t rows, pixels, channels;
  Kind kind;
};

// Kernels that go through images number by number count in 32 bits: as many numbers of any kind, 8 GB of f16.
constexpr int64_t MOST_NUMBERS = int64_t{1} << 32;

// y = act((x' - mean) / sqrt(variance + epsilon) * weight + bias) over groups of channels, x' = x + lead + shift, act = SiLU or nothing.
struct GroupNorm {
  Image image;
  const void *x;
  const void *lead;         // [channels] or none: the bias of what made x
  const void *shift;        // [rows, channels] or none, each row `shift_stride` numbers behind the last; need not be aligned
  int64_t shift_stride;
  const void *weight, *bias; // [channels]
  void *y;                  // not x
  float *partial;           // [partials(image, groups)]
  int64_t groups;
  float epsilon;
  int32_t silu;
};

// Of the normalisation over rows.
constexpr int64_t MOST_WIDTH = 2048;

// sum = x + more; y = (sum - mean) / sqrt(variance + epsilon) * weight + bias over each row. All are [rows, width], weight and bias [width],
// `width` is a multiple of 8 and at most MOST_WIDTH, and what is written is nothing of what is read.
struct AddLayerNorm {
  int64_t rows, width;
  Kind kind;
  const void *x, *more, *weight, *bias;
  void *sum, *y;
  float epsilon;
};

extern "C" {

// Floats that `GroupNorm::partial` must have, none where an image is normalised in one launch; -1 if the image is not for this kernel.
int64_t latentd_kernel_partials(const Image *image, int64_t groups);

int latentd_kernel_group_norm(const GroupNorm *norm, void *stream);

int latentd_kernel_add_layer_norm(const AddLayerNorm *norm, void *stream);

// y[rows, channels] = x[rows, 0..channels] * GELU(x[rows, channels..2 channels]), GELU by the error function; `pixels` is 1. At most
// MOST_NUMBERS in y.
int latentd_kernel_geglu(const Image *image, const void *x, void *y, void *stream);

// y += x + bias[channels] + other[channels]; `x` and `other` may be none. At most MOST_NUMBERS in y.
int latentd_kernel_add_residual(const Image *image, const void *x, const void *bias, const void *other, void *y, void *stream);
}
