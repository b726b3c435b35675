// A sum, and its normalisation over rows, in one pass over memory.
//
// Sums are in f32 and in an order that depends on the width alone.

#pragma once

#include "grid.h"
#include "kernels.h"

namespace {

// A block has several rows, `lanes` threads each, and each thread at most HELD packs of its row, which it keeps.
template <typename T> struct AddNormalise {
  static constexpr int PHASES = 5, RESIDENT = 3, HELD = 2;
  static constexpr unsigned FOLDS = 8;
  static_assert(MOST_WIDTH / Pack<T>::SIZE <= HELD * THREADS);
  struct Kept {
    Pack<T> sum[HELD], weight[HELD], bias[HELD];
    float mean;
  };
  AddLayerNorm norm;
  unsigned packs;
  Divisor lanes;
  unsigned height, folds;

  explicit AddNormalise(const AddLayerNorm &norm)
      : norm(norm), packs(static_cast<unsigned>(norm.width / Pack<T>::SIZE)), lanes((packs + HELD - 1) / HELD), height(THREADS / lanes.by),
        folds(lanes.by < FOLDS ? lanes.by : FOLDS) {}

  Grid grid() const { return {static_cast<unsigned>((norm.rows + height - 1) / height), 1, 2 * THREADS}; }

  DEVICE unsigned line(Place place) const { return lanes.quotient(place.thread); }
  DEVICE unsigned lane(Place place) const { return lanes.rest(place.thread); }
  DEVICE int64_t row(Place place) const { return int64_t{place.x} * height + line(place); }

  // Whether the thread has a row, and an `i`th pack.
  DEVICE bool has(Place place, int i) const {
    return line(place) < height && row(place) < norm.rows && lane(place) + i * lanes.by < packs;
  }

  // Each thread: its packs of both, of which it keeps the sum; and the sum of its numbers, as they are rounded.
  DEVICE void phase(Step<0>, Place place, Kept &kept) const {
    const T *from = static_cast<const T *>(norm.x) + row(place) * norm.width, *other = static_cast<const T *>(norm.more) + row(place) * norm.width;
    Pack<T> more[HELD];
    UNROLL
    for (int i = 0; i < HELD; i++) {
      kept.sum[i] = load_if<T>(has(place, i), from, lane(place) + i * lanes.by);
      more[i] = load_if<T>(has(place, i), other, lane(place) + i * lanes.by);
    }
    UNROLL
    for (int i = 0; i < HELD; i++) { // used at the end, and there by then
      kept.weight[i] = load_if<T>(has(place, i), norm.weight, lane(place) + i * lanes.by);
      kept.bias[i] = load_if<T>(has(place, i), norm.bias, lane(place) + i * lanes.by);
    }
    T *to = static_cast<T *>(norm.sum) + row(place) * norm.width;
    float sum = 0;
    UNROLL
    for (int i = 0; i < HELD; i++) {
      for (unsigned j = 0; j < Pack<T>::SIZE; j++) {
        kept.sum[i].at[j] = narrow<T>(wide(kept.sum[i].at[j]) + wide(more[i].at[j]));
        sum += wide(kept.sum[i].at[j]); // 0 where it has none
      }
      if (has(place, i)) {
        store(to, lane(place) + i * lanes.by, kept.sum[i]);
      }
    }
    place.scratch[place.thread] = sum;
  }

  DEVICE void phase(Step<1>, Place place, Kept &) const { fold(place); }

  // Each thread: the row's mean, and the sum of squares of what is off it.
  DEVICE void phase(Step<2>, Place place, Kept &kept) const {
    kept.mean = total(place) / static_cast<float>(norm.width);
    float squares = 0;
    UNROLL
    for (int i = 0; i < HELD; i++) {
      if (has(place, i)) {
        for (unsigned j = 0; j < Pack<T>::SIZE; j++) {
          const float off = wide(kept.sum[i].at[j]) - kept.mean;
          squares += off * off;
        }
      }
    }
    place.scratch[place.thread] = squares;
  }

  DEVICE void phase(Step<3>, Place place, Kept &) const { fold(place); }

  DEVICE void phase(Step<4>, Place place, Kept &kept) const {
    const float factor = 1 / sqrtf(total(place) / static_cast<float>(norm.width) + norm.epsilon);
    T *to = static_cast<T *>(norm.y) + row(place) * norm.width;
    UNROLL
    for (int i = 0; i < HELD; i++) {
      if (has(place, i)) {
        Pack<T> made;
        for (unsigned j = 0; j < Pack<T>::SIZE; j++) {
          const float y = (wide(kept.sum[i].at[j]) - kept.mean) * factor;
          made.at[j] = narrow<T>(y * wide(kept.weight[i].at[j]) + wide(kept.bias[i].at[j]));
        }
        store(to, lane(place) + i * lanes.by, made);
      }
    }
  }

  // Some threads of each row: what some of the others have, behind what all have.
  DEVICE void fold(Place place) const {
    if (line(place) < height && lane(place) < folds) {
      float sum = 0;
      for (unsigned i = lane(place); i < lanes.by; i += folds) {
        sum += place.scratch[line(place) * lanes.by + i];
      }
      place.scratch[THREADS + line(place) * folds + lane(place)] = sum;
    }
  }

  // What `fold` left of the thread's row.
  DEVICE float total(Place place) const {
    float sum = 0;
    for (unsigned i = 0; line(place) < height && i < folds; i++) {
      sum += place.scratch[THREADS + line(place) * folds + i];
    }
    return sum;
  }
};

template <typename T> int add_layer_norm(const AddLayerNorm &norm, void *stream) {
  const AddNormalise<T> kernel(norm);
  return run(kernel, kernel.grid(), stream);
}

} // namespace
