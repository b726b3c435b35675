// A block's part of an image: what of its channels, and what the block's threads do with them in turn.

#pragma once

#include "grid.h"
#include "kernels.h"

namespace {

// Whole groups of channels that are whole packs, and how the threads of a block share them: `lanes` packs side by side, `height` pixels at once.
template <typename T> struct Bundle {
  static constexpr unsigned SIZE = Pack<T>::SIZE, FOLDS = 16;
  unsigned stride;       // packs a pixel of the image
  unsigned packs, height;
  Divisor width, groups; // channels a group; groups a bundle
  Divisor lanes, count;  // bundles an image
  unsigned slots, folds; // groups that a pack may have channels of; threads that sum up a group

  // All channels of an image.
  static Bundle all(int64_t channels, int64_t groups) { return Bundle(channels, groups, groups); }

  // As few as can be, but four packs where there are as many: less than 64 bytes in a row make bad use of memory.
  static Bundle small(int64_t channels, int64_t all) {
    const int64_t width = channels / all;
    int64_t groups = SIZE;
    while (groups > 1 && groups / 2 * width % SIZE == 0) {
      groups /= 2;
    }
    while (groups * width < 4 * SIZE && all % (2 * groups) == 0) {
      groups *= 2;
    }
    return Bundle(channels, all, groups);
  }

  // Floats: of each slot of each thread's packs, and of each group's folds.
  BOTH size_t scratch() const { return 2 * (size_t{slots} * height * packs + size_t{folds} * groups.by); }

private:
  Bundle(int64_t channels, int64_t all, int64_t groups)
      : stride(static_cast<unsigned>(channels / SIZE)), packs(static_cast<unsigned>(groups * (channels / all) / SIZE)),
        width(static_cast<unsigned>(channels / all)), groups(static_cast<unsigned>(groups)), lanes(packs < THREADS ? packs : THREADS),
        count(stride / packs) {
    height = THREADS / lanes.by;
    slots = (SIZE - 2) / width.by + 2;
    folds = THREADS / this->groups.by < FOLDS ? THREADS / this->groups.by : FOLDS;
  }
};

// Of what is off an origin, and of its square.
struct Sum {
  float off, squares;

  DEVICE void operator+=(Sum other) {
    off += other.off;
    squares += other.squares;
  }
};

// What is taken off a group, and what it is multiplied by then.
struct Scale {
  float mean, factor;

  DEVICE static Scale of(float mean, float variance, float epsilon) {
    return {mean, 1 / sqrtf((variance < 0 ? 0 : variance) + epsilon)};
  }
};

template <typename T> DEVICE float silu(float x) { return quick_ratio(x, 1 + quick_exp(-x)); }
template <> DEVICE float silu<float>(float x) { return x / (1 + expf(-x)); }

// The groups of channels that follow each other.
struct Walk {
  unsigned width, group, rest;

  DEVICE Walk(unsigned channel, const Divisor &width) : width(width.by), group(width.quotient(channel)), rest(channel - group * width.by) {}

  // To the next channel; whether its group is another one.
  DEVICE bool next() {
    rest++;
    const bool over = rest == width;
    group += over;
    rest = over ? 0 : rest;
    return over;
  }
};

// One bundle of one image. Channels, packs and groups are counted from the bundle's first.
template <typename T> struct Cut {
  static constexpr unsigned SIZE = Pack<T>::SIZE;
  const GroupNorm &norm;
  const Bundle<T> &bundle;
  unsigned row, index;

  DEVICE unsigned before() const { return index * bundle.packs * SIZE; }

  // From the image's first number to the bundle's.
  DEVICE size_t start() const { return size_t{row} * static_cast<size_t>(norm.image.pixels * norm.image.channels) + before(); }

  DEVICE const T *x() const { return static_cast<const T *>(norm.x) + start(); }

  // What is added to each channel of a pack before it is normalised.
  DEVICE void find_added(unsigned pack, float (&added)[SIZE]) const {
    const Pack<T> lead = load_if<T>(norm.lead, norm.lead, index * bundle.packs + pack);
    UNROLL
    for (unsigned i = 0; i < SIZE; i++) {
      added[i] = wide(lead.at[i]);
    }
    if (norm.shift) {
      const T *shift = shifts() + pack * SIZE;
      UNROLL
      for (unsigned i = 0; i < SIZE; i++) {
        added[i] += wide(shift[i]);
      }
    }
  }

  DEVICE const T *shifts() const { return static_cast<const T *>(norm.shift) + row * norm.shift_stride + before(); }

  // A number near a group's mean: its first channel's at `pixel`.
  DEVICE float origin(unsigned group, unsigned pixel) const {
    const unsigned channel = group * bundle.width.by;
    const float lead = norm.lead ? wide(static_cast<const T *>(norm.lead)[before() + channel]) : 0;
    const float added = lead + (norm.shift ? wide(shifts()[channel]) : 0);
    return wide(x()[pixel * (bundle.stride * SIZE) + channel]) + added;
  }

  // A pack at `pixel` and the pixels that the thread comes to next, before `end`: all on their way at once.
  template <int LOADS> DEVICE void fetch(Pack<T> (&into)[LOADS], unsigned pack, unsigned pixel, unsigned end) const {
    UNROLL
    for (int j = 0; j < LOADS; j++) {
      const unsigned at = pixel + j * bundle.height;
      into[j] = load_if<T>(at < end, x(), at * bundle.stride + pack);
    }
  }

  // Which pack is the first of a thread's, and which pixel. Threads that are left over have none.
  DEVICE unsigned lane(unsigned thread) const { return line(thread) < bundle.height ? bundle.lanes.rest(thread) : bundle.packs; }
  DEVICE unsigned line(unsigned thread) const { return bundle.lanes.quotient(thread); }

  // Each thread: sums over its pixels from `begin` to `end`, of those of a pack's channels together that are of one group.
  template <int LOADS> DEVICE void sum(unsigned thread, unsigned begin, unsigned end, Sum *sums) const {
    for (unsigned pack = lane(thread); pack < bundle.packs; pack += bundle.lanes.by) {
      unsigned pixel = begin + line(thread);
      Pack<T> x[LOADS];
      fetch(x, pack, pixel, end); // before the origins, which are waited for
      float origins[SIZE];
      find_origins(pack, begin, origins);
      Sum sum[SIZE] = {};
      for (;;) {
        UNROLL
        for (int j = 0; j < LOADS; j++) {
          if (pixel + j * bundle.height < end) {
            for (unsigned i = 0; i < SIZE; i++) {
              const float off = wide(x[j].at[i]) - origins[i];
              sum[i] += {off, off * off};
            }
          }
        }
        pixel += LOADS * bundle.height;
        if (pixel >= end) {
          break;
        }
        fetch(x, pack, pixel, end);
      }
      by_group(pack, sum, sums + line(thread) * bundle.packs + pack);
    }
  }

  // Of each channel of a pack: what is taken off x for its distance from the origin of its group.
  DEVICE void find_origins(unsigned pack, unsigned pixel, float (&origins)[SIZE]) const {
    const unsigned first = bundle.width.quotient(pack * SIZE), last = bundle.width.quotient(pack * SIZE + SIZE - 1);
    const float of_first = origin(first, pixel), of_last = origin(last, pixel); // of more than two groups only where they are small
    float added[SIZE];
    find_added(pack, added);
    Walk at(pack * SIZE, bundle.width);
    UNROLL
    for (unsigned i = 0; i < SIZE; i++) {
      float its = at.group == first ? of_first : of_last;
      if (at.group != first && at.group != last) {
        its = origin(at.group, pixel);
      }
      origins[i] = its - added[i];
      at.next();
    }
  }

  // The sums of a pack's channels by group, each slot's behind all of the slot before.
  DEVICE void by_group(unsigned pack, const Sum (&sum)[SIZE], Sum *to) const {
    Walk at(pack * SIZE, bundle.width);
    Sum its{};
    UNROLL
    for (unsigned i = 0; i < SIZE; i++) {
      its += sum[i];
      if (at.next() || i + 1 == SIZE) {
        *to = its;
        to += bundle.height * bundle.packs;
        its = {};
      }
    }
  }

  // Some threads: for a group, the sums of some lines.
  DEVICE void fold(unsigned thread, Sum *sums) const {
    const unsigned part = bundle.groups.quotient(thread), group = bundle.groups.rest(thread), folds = bundle.folds;
    if (part >= folds) {
      return;
    }
    const unsigned from = group * bundle.width.by, first = from / SIZE, last = (from + bundle.width.by - 1) / SIZE;
    // In its first pack it has a slot behind those of other groups, in others the first.
    const Sum *head = sums + (group - bundle.width.quotient(first * SIZE)) * bundle.height * bundle.packs;
    Sum sum{};
    for (unsigned line = part; line < bundle.height; line += folds) {
      sum += head[line * bundle.packs + first];
      for (unsigned pack = first + 1; pack <= last; pack++) {
        sum += sums[line * bundle.packs + pack];
      }
    }
    sums[bundle.slots * bundle.height * bundle.packs + part * bundle.groups.by + group] = sum;
  }

  // Of a group, what `fold` left.
  DEVICE Sum total(unsigned group, const Sum *sums) const {
    const Sum *from = sums + bundle.slots * bundle.height * bundle.packs + group;
    Sum sum{};
    for (unsigned part = 0; part < bundle.folds; part++) {
      sum += from[part * bundle.groups.by];
    }
    return sum;
  }

  // Each thread: its packs of its pixels from `begin` to `end`.
  template <int LOADS> DEVICE void normalise(unsigned thread, unsigned begin, unsigned end, const Scale *scales) const {
    T *y = static_cast<T *>(norm.y) + start();
    for (unsigned pack = lane(thread); pack < bundle.packs; pack += bundle.lanes.by) {
      unsigned pixel = begin + line(thread);
      Pack<T> x[LOADS];
      fetch(x, pack, pixel, end);
      float factors[SIZE], offsets[SIZE];
      find_map(pack, scales, factors, offsets);
      for (;;) {
        UNROLL
        for (int j = 0; j < LOADS; j++) {
          const unsigned at = pixel + j * bundle.height;
          if (at < end) {
            store(y, at * bundle.stride + pack, mapped(x[j], factors, offsets));
          }
        }
        pixel += LOADS * bundle.height;
        if (pixel >= end) {
          break;
        }
        fetch(x, pack, pixel, end);
      }
    }
  }

  // Of each channel of a pack: what x is multiplied by, and what is added then.
  DEVICE void find_map(unsigned pack, const Scale *scales, float (&factors)[SIZE], float (&offsets)[SIZE]) const {
    const Pack<T> weight = load<T>(norm.weight, index * bundle.packs + pack), bias = load<T>(norm.bias, index * bundle.packs + pack);
    float added[SIZE];
    find_added(pack, added);
    Walk at(pack * SIZE, bundle.width);
    UNROLL
    for (unsigned i = 0; i < SIZE; i++) {
      const Scale scale = scales[at.group];
      factors[i] = scale.factor * wide(weight.at[i]);
      offsets[i] = wide(bias.at[i]) + (added[i] - scale.mean) * factors[i];
      at.next();
    }
  }

  DEVICE Pack<T> mapped(const Pack<T> &x, const float (&factors)[SIZE], const float (&offsets)[SIZE]) const {
    float y[SIZE];
    for (unsigned i = 0; i < SIZE; i++) {
      y[i] = wide(x.at[i]) * factors[i] + offsets[i];
    }
    if (norm.silu) {
      for (unsigned i = 0; i < SIZE; i++) {
        y[i] = silu<T>(y[i]);
      }
    }
    Pack<T> made;
    for (unsigned i = 0; i < SIZE; i++) {
      made.at[i] = narrow<T>(y[i]);
    }
    return made;
  }
};

} // namespace
