// How the kernels of kernels.cu run: on a GPU, and on a processor, where the tests check their arithmetic.
//
// A kernel is a struct: its arguments, and phases as member functions. All threads of a block are through one phase before any begins the
// next; what a thread keeps from phase to phase lies in the block's scratch of floats. So a processor runs it with two loops, and needs no
// threads.

#pragma once

#include <cstddef>
#include <cstdint>

// Of every block.
constexpr int THREADS = 256;

// A thread's place: which thread of which block. Blocks are numbered `x` within a picture and `y` by picture.
struct Place {
  int thread;
  unsigned x, y;
};

struct Grid {
  unsigned x, y;
  size_t scratch; // floats a block
};

#ifdef __CUDACC__

#include <cstring>

#include <cuda_runtime.h>

#define DEVICE __device__ __forceinline__

// By the instructions themselves: CUDA's own header of these needs a library of C++ headers that nothing else here wants.
struct f16 {
  uint16_t bits;
};

DEVICE float wide(f16 x) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
  return value;
}

template <typename T> DEVICE T narrow(float x);
template <> DEVICE f16 narrow<f16>(float x) {
  f16 value;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(value.bits) : "f"(x));
  return value;
}

// Three blocks at once on each multiprocessor: registers are kept for that, and nothing is spilled.
template <typename Kernel> __global__ void __launch_bounds__(THREADS, 3) phases(const Kernel kernel) {
  extern __shared__ float scratch[];
  const Place place{static_cast<int>(threadIdx.x), blockIdx.x, blockIdx.y};
  kernel.first(place, scratch);
  __syncthreads();
  kernel.second(place, scratch);
  __syncthreads();
  kernel.third(place, scratch);
}

// Gives the kernel to `stream`; CUDA's status.
template <typename Kernel> int run(const Kernel &kernel, Grid grid, void *stream) {
  phases<<<dim3(grid.x, grid.y), THREADS, grid.scratch * sizeof(float), static_cast<cudaStream_t>(stream)>>>(kernel);
  return static_cast<int>(cudaGetLastError());
}

#else

#include <cmath>
#include <cstring>
#include <vector>

#define DEVICE inline

using f16 = _Float16;

DEVICE float wide(f16 x) { return static_cast<float>(x); }

template <typename T> DEVICE T narrow(float x);
template <> DEVICE f16 narrow<f16>(float x) { return static_cast<f16>(x); }

// Where a GPU's threads are in no order, these are in two: with any `stream`, from the last to the first. Who finds different results
// has found a phase in which threads depend on one another.
template <typename Kernel> int run(const Kernel &kernel, Grid grid, void *stream) {
  std::vector<float> scratch(grid.scratch);
  const auto each = [&](auto phase) {
    for (int i = 0; i < THREADS; i++) {
      phase(stream ? THREADS - 1 - i : i);
    }
  };
  for (unsigned y = 0; y < grid.y; y++) {
    for (unsigned x = 0; x < grid.x; x++) {
      each([&](int thread) { kernel.first({thread, x, y}, scratch.data()); });
      each([&](int thread) { kernel.second({thread, x, y}, scratch.data()); });
      each([&](int thread) { kernel.third({thread, x, y}, scratch.data()); });
    }
  }
  return 0;
}

#endif

DEVICE float wide(float x) { return x; }
template <> DEVICE float narrow<float>(float x) { return x; }

// f32 without its lower half; to the nearest, halves to even.
struct bf16 {
  uint16_t bits;
};

DEVICE float wide(bf16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

template <> DEVICE bf16 narrow<bf16>(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  const uint32_t nearest = x == x ? bits + 0x7fff + ((bits >> 16) & 1) : 0x7fff0000;
  return {static_cast<uint16_t>(nearest >> 16)};
}

// As many numbers as one access of memory moves.
template <typename T> struct alignas(16) Pack {
  static constexpr int SIZE = 16 / sizeof(T);
  T at[SIZE];
};

template <typename T> DEVICE Pack<T> load(const void *from, int64_t pack) { return static_cast<const Pack<T> *>(from)[pack]; }

template <typename T> DEVICE void store(void *to, int64_t pack, const Pack<T> &value) { static_cast<Pack<T> *>(to)[pack] = value; }
