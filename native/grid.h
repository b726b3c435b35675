// How the kernels run: on a GPU, and on a processor, where the tests check their arithmetic.
//
// A kernel is a struct: its arguments, and PHASES phases, `phase(Step<0>, …)` and so on. All threads of a block are through one phase before
// any begins the next. What a thread tells others lies in the block's scratch of floats, what it keeps for itself is of the kernel's type Kept.
// So a processor runs a kernel by loops, and needs no threads.

#pragma once

#include <cstddef>
#include <cstdint>

// Of every block.
constexpr int THREADS = 256;

// A thread's place: which thread of which block, and the block's scratch. Blocks are numbered `x` within an image and `y` by image.
struct Place {
  int thread;
  unsigned x, y;
  float *scratch;
};

struct Grid {
  unsigned x, y;
  size_t scratch; // floats a block
};

// The number of a phase.
template <int N> struct Step {};

// What most kernels keep from phase to phase.
struct Nothing {};

#ifdef __CUDACC__

#include <cstring>

#include <cuda_runtime.h>

#define DEVICE __device__ __forceinline__
#define BOTH __host__ DEVICE // also where kernels are given from
#define UNROLL _Pragma("unroll")
#define AS_PRAGMA(text) _Pragma(#text)
#define UNROLL_BY(n) AS_PRAGMA(unroll n)

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

// By the units for special functions, within 2 and a few units of the last place of an f32: good for what is rounded to 16 bits.
DEVICE float quick_exp(float x) { return __expf(x); }
DEVICE float quick_ratio(float x, float y) { return __fdividef(x, y); }

template <int N, typename Kernel> DEVICE void walk(const Kernel &kernel, Place place, typename Kernel::Kept &kept) {
  kernel.phase(Step<N>{}, place, kept);
  if constexpr (N + 1 < Kernel::PHASES) {
    __syncthreads();
    walk<N + 1>(kernel, place, kept);
  }
}

// With so many blocks at once on each multiprocessor: registers are kept for that, and nothing is spilled.
template <typename Kernel> __global__ void __launch_bounds__(THREADS, Kernel::RESIDENT) phases(const Kernel kernel) {
  extern __shared__ __align__(16) float scratch[];
  typename Kernel::Kept kept;
  walk<0>(kernel, {static_cast<int>(threadIdx.x), blockIdx.x, blockIdx.y, scratch}, kept);
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
#define BOTH DEVICE
#define UNROLL
#define UNROLL_BY(n)

using f16 = _Float16;

DEVICE float wide(f16 x) { return static_cast<float>(x); }

template <typename T> DEVICE T narrow(float x);
template <> DEVICE f16 narrow<f16>(float x) { return static_cast<f16>(x); }

DEVICE float quick_exp(float x) { return expf(x); }
DEVICE float quick_ratio(float x, float y) { return x / y; }

template <int N, typename Kernel> void walk(const Kernel &kernel, Place place, std::vector<typename Kernel::Kept> &kept, bool backwards) {
  for (int i = 0; i < THREADS; i++) {
    place.thread = backwards ? THREADS - 1 - i : i;
    kernel.phase(Step<N>{}, place, kept[place.thread]);
  }
  if constexpr (N + 1 < Kernel::PHASES) {
    walk<N + 1>(kernel, place, kept, backwards);
  }
}

// Where a GPU's threads are in no order, these are in two: with any `stream`, from the last to the first. Who finds different results
// has found a phase in which threads depend on one another.
template <typename Kernel> int run(const Kernel &kernel, Grid grid, void *stream) {
  std::vector<float> scratch(grid.scratch);
  std::vector<typename Kernel::Kept> kept(THREADS);
  for (unsigned y = 0; y < grid.y; y++) {
    for (unsigned x = 0; x < grid.x; x++) {
      walk<0>(kernel, {0, x, y, scratch.data()}, kept, stream != nullptr);
    }
  }
  return 0;
}

#endif

// Divides by the same number again and again: by a product, where the quotient's dividend times divisor is below 2^32.
struct Divisor {
  unsigned by, magic;

  explicit Divisor(unsigned by) : by(by), magic(static_cast<unsigned>(((uint64_t{1} << 32) + by - 1) / by)) {}

  DEVICE unsigned quotient(unsigned n) const { return by == 1 ? n : static_cast<unsigned>(uint64_t{n} * magic >> 32); }
  DEVICE unsigned rest(unsigned n) const { return n - quotient(n) * by; }
};

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
  static constexpr unsigned SIZE = 16 / sizeof(T);
  T at[SIZE];
};

template <typename T> DEVICE Pack<T> load(const void *from, unsigned pack) { return static_cast<const Pack<T> *>(from)[pack]; }

template <typename T> DEVICE void store(void *to, unsigned pack, const Pack<T> &value) { static_cast<Pack<T> *>(to)[pack] = value; }

// A pack if it is wanted, else zeros. Several of these in a row are all on their way before any has come: they are instructions with a
// predicate, where of an `if` the compiler makes a branch, which waits.
template <typename T> DEVICE Pack<T> load_if(bool wanted, const void *from, unsigned pack) {
#ifdef __CUDACC__
  uint32_t words[4];
  asm volatile("{\n\t.reg .pred wanted;\n\tsetp.ne.u32 wanted, %5, 0;\n\t"
               "mov.u32 %0, 0;\n\tmov.u32 %1, 0;\n\tmov.u32 %2, 0;\n\tmov.u32 %3, 0;\n\t"
               "@wanted ld.global.v4.u32 {%0, %1, %2, %3}, [%4];\n\t}"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "l"(static_cast<const Pack<T> *>(from) + pack), "r"(static_cast<unsigned>(wanted)));
  Pack<T> value;
  memcpy(&value, words, sizeof value);
  return value;
#else
  return wanted ? load<T>(from, pack) : Pack<T>{};
#endif
}
