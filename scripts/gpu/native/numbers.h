// Numbers of the kernels' kinds on the processor, and tensors on the GPU with guards around them.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

inline void check(cudaError_t status, const char *what) {
  if (status != cudaSuccess) {
    std::printf("FAILED: %s: %s\n", what, cudaGetErrorString(status));
    std::exit(2);
  }
}

inline std::mt19937 generator(7);

inline int width_of(Kind kind) { return kind == F32 ? 4 : 2; }

inline float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// IEEE 754's 16 bits: of the exponent 5, of the fraction 10.
inline float of_f16(uint16_t half) {
  const int exponent = (half >> 10) & 31, fraction = half & 1023;
  float value;
  if (exponent == 31) {
    value = fraction ? NAN : INFINITY;
  } else {
    value = exponent ? std::ldexp(float(fraction | 1024), exponent - 25) : std::ldexp(float(fraction), -24);
  }
  return half & 0x8000 ? -value : value;
}

// To the nearest, halves to even; what is too small becomes 0.
inline uint16_t as_f16(float value) {
  if (value != value) {
    return 0x7e00;
  }
  const uint32_t bits = to_bits(value), sign = (bits >> 16) & 0x8000, fraction = bits & 0x7fffff;
  const int exponent = int((bits >> 23) & 255) - 112;
  if (exponent <= 0 || exponent >= 31) {
    return uint16_t(exponent <= 0 ? sign : sign | 0x7c00);
  }
  const uint32_t cut = sign | uint32_t(exponent) << 10 | fraction >> 13, rest = fraction & 0x1fff;
  return uint16_t(cut + (rest > 0x1000 || (rest == 0x1000 && (cut & 1))));
}

// f32 without its lower half.
inline float of_bf16(uint16_t upper) { return from_bits(uint32_t(upper) << 16); }

inline uint16_t as_bf16(float value) {
  const uint32_t bits = to_bits(value);
  return value != value ? 0x7fff : uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float read(const char *at, Kind kind) {
  uint16_t half;
  float value;
  std::memcpy(&value, at, kind == F32 ? sizeof value : 0);
  std::memcpy(&half, at, sizeof half);
  return kind == F32 ? value : kind == F16 ? of_f16(half) : of_bf16(half);
}

inline void write(char *at, Kind kind, float value) {
  const uint16_t half = kind == F16 ? as_f16(value) : as_bf16(value);
  std::memcpy(at, kind == F32 ? static_cast<const void *>(&value) : &half, width_of(kind));
}

// A tensor on the GPU between guards that are no numbers: who writes beyond it is seen, and who reads beyond it gives no number.
class Tensor {
public:
  // With normal numbers, or, to be written to, with none.
  Tensor(Kind kind, size_t count, float deviation, float mean = 0) : kind(kind), values(count) {
    std::normal_distribution<float> normal(mean, deviation);
    fill([&] { return normal(generator); });
  }
  Tensor(Kind kind, size_t count) : kind(kind), values(count) {
    fill([] { return NAN; });
  }
  ~Tensor() { cudaFree(memory); }
  Tensor(const Tensor &) = delete;
  Tensor &operator=(const Tensor &) = delete;

  void *at(size_t index = 0) const { return memory + (GUARD + index) * width_of(kind); }
  // What it was made with.
  double operator[](size_t index) const { return values[index]; }

  // What it holds now; empty if something was written beyond it.
  std::vector<float> now() const {
    std::vector<char> raw((values.size() + 2 * GUARD) * width_of(kind));
    check(cudaMemcpy(raw.data(), memory, raw.size(), cudaMemcpyDeviceToHost), "a copy from the GPU");
    std::vector<float> found(values.size());
    for (size_t i = 0; i < values.size() + 2 * GUARD; i++) {
      const float value = read(&raw[i * width_of(kind)], kind);
      if (i >= GUARD && i < values.size() + GUARD) {
        found[i - GUARD] = value;
      } else if (value == value) {
        return {};
      }
    }
    return found;
  }

private:
  static constexpr size_t GUARD = 64; // numbers, a multiple of 16 bytes

  template <typename Next> void fill(Next next) {
    std::vector<char> raw((values.size() + 2 * GUARD) * width_of(kind));
    for (size_t i = 0; i < values.size() + 2 * GUARD; i++) {
      const bool guards = i < GUARD || i >= values.size() + GUARD;
      write(&raw[i * width_of(kind)], kind, guards ? NAN : next());
      if (!guards) {
        values[i - GUARD] = read(&raw[i * width_of(kind)], kind);
      }
    }
    check(cudaMalloc(reinterpret_cast<void **>(&memory), raw.size()), "memory of the GPU");
    check(cudaMemcpy(memory, raw.data(), raw.size(), cudaMemcpyHostToDevice), "a copy to the GPU");
  }

  Kind kind;
  std::vector<float> values;
  char *memory = nullptr;
};
