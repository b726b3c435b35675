// What takes every pack by itself.

#pragma once

#include "grid.h"
#include "kernels.h"

namespace {

// Kernels of one phase, with HELD packs to a thread, all of which are read before any is worked on.
template <typename T, int HELD_> struct Plain {
  static constexpr int PHASES = 1, RESIDENT = 3, HELD = HELD_;
  using Kept = Nothing;
  unsigned packs, width; // of all; of a row

  explicit Plain(const Image &image)
      : packs(static_cast<unsigned>(image.rows * image.pixels * image.channels / Pack<T>::SIZE)),
        width(static_cast<unsigned>(image.channels / Pack<T>::SIZE)) {}

  Grid grid() const { return {(packs + HELD * THREADS - 1) / (HELD * THREADS), 1, 0}; }

  DEVICE unsigned at(Place place, int i) const { return (place.x * HELD + i) * THREADS + place.thread; }
};

template <typename T> struct Geglu : Plain<T, 2> {
  const void *x;
  void *y;

  Geglu(const Image &image, const void *x, void *y) : Plain<T, 2>(image), x(x), y(y) {}

  DEVICE void phase(Step<0>, Place place, Nothing &) const {
    Pack<T> values[Geglu::HELD], gates[Geglu::HELD];
    UNROLL
    for (int i = 0; i < Geglu::HELD; i++) {
      const unsigned at = this->at(place, i), from = at + at / this->width * this->width;
      values[i] = load_if<T>(at < this->packs, x, from);
      gates[i] = load_if<T>(at < this->packs, x, from + this->width);
    }
    UNROLL
    for (int i = 0; i < Geglu::HELD; i++) {
      if (this->at(place, i) < this->packs) {
        for (unsigned j = 0; j < Pack<T>::SIZE; j++) {
          const float g = wide(gates[i].at[j]);
          values[i].at[j] = narrow<T>(wide(values[i].at[j]) * (0.5f * g * (1 + erff(g * 0.70710678118654752f))));
        }
        store(y, this->at(place, i), values[i]);
      }
    }
  }
};

template <typename T> struct AddResidual : Plain<T, 2> {
  const void *x, *bias, *other;
  void *y;

  AddResidual(const Image &image, const void *x, const void *bias, const void *other, void *y)
      : Plain<T, 2>(image), x(x), bias(bias), other(other), y(y) {}

  DEVICE void phase(Step<0>, Place place, Nothing &) const {
    Pack<T> sums[AddResidual::HELD], more[AddResidual::HELD], mine[AddResidual::HELD], its[AddResidual::HELD];
    UNROLL
    for (int i = 0; i < AddResidual::HELD; i++) {
      const unsigned at = this->at(place, i), channel = at % this->width;
      const bool there = at < this->packs;
      sums[i] = load_if<T>(there, y, at);
      more[i] = load_if<T>(there && x, x, at);
      mine[i] = load_if<T>(there, bias, channel);
      its[i] = load_if<T>(there && other, other, channel);
    }
    UNROLL
    for (int i = 0; i < AddResidual::HELD; i++) {
      if (this->at(place, i) < this->packs) {
        for (unsigned j = 0; j < Pack<T>::SIZE; j++) {
          const float added = wide(mine[i].at[j]) + wide(its[i].at[j]);
          sums[i].at[j] = narrow<T>(wide(sums[i].at[j]) + (wide(more[i].at[j]) + added));
        }
        store(y, this->at(place, i), sums[i]);
      }
    }
  }
};

template <typename T> int geglu(const Image &image, const void *x, void *y, void *stream) {
  const Geglu<T> kernel(image, x, y);
  return run(kernel, kernel.grid(), stream);
}

template <typename T> int add_residual(const Image &image, const void *x, const void *bias, const void *other, void *y, void *stream) {
  const AddResidual<T> kernel(image, x, bias, other, y);
  return run(kernel, kernel.grid(), stream);
}

} // namespace
