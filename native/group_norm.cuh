// Normalisation over groups of channels: in one launch if an image is small, else in two, of which the first measures.
//
// Sums are in f32 and in an order that depends on the size of an image alone: a row gets the same bits whoever shares its evaluation.

#pragma once

#include "cut.cuh"

namespace {

// An image's pixels in equal parts, the last of which may be shorter.
struct Parts {
  unsigned pixels, size, count;

  // At most `most` of them, each of `least` pixels or more.
  Parts(int64_t all, int64_t most, int64_t least) : pixels(static_cast<unsigned>(all)) {
    const int64_t even = (all + most - 1) / most;
    size = static_cast<unsigned>(even < least ? least : even);
    count = (pixels + size - 1) / size;
  }

  DEVICE unsigned begin(unsigned part) const { return part * size; }
  DEVICE unsigned end(unsigned part) const { return part + 1 < count ? (part + 1) * size : pixels; }
};

// By how many parts each of `bundles` in each row must be cut for a GPU of some 130 multiprocessors to have `wanted` blocks.
inline int64_t cuts(int64_t wanted, const GroupNorm &norm, unsigned bundles) {
  const int64_t many = wanted / (norm.image.rows * bundles);
  return many < 1 ? 1 : many;
}

// What a group of channels has in one part of an image: its mean, and the sum of squares of what is off the mean. The image's are computed
// from these (Chan, Golub and LeVeque 1979), so that a large mean costs no precision.
struct Moments {
  float mean, squares;
};

// All of it in one launch. Each block measures a bundle over the whole image, and normalises one part of its pixels: with few rows several
// blocks measure the same, each all of it and in the same order, because a GPU with idle multiprocessors has nothing better to do.
template <typename T> struct NormaliseAtOnce {
  static constexpr int PHASES = 4, RESIDENT = 2;
  static constexpr int64_t MOST_PIXELS = 1024;
  static constexpr unsigned MOST_PACKS = 32;
  using Kept = Nothing;
  GroupNorm norm;
  Bundle<T> bundle;
  Parts parts;

  // Depends on the size of an image alone.
  static bool suits(const Image &image, const Bundle<T> &bundle) { return image.pixels <= MOST_PIXELS && bundle.packs <= MOST_PACKS; }

  NormaliseAtOnce(const GroupNorm &norm, const Bundle<T> &bundle)
      : norm(norm), bundle(bundle), parts(norm.image.pixels, cuts(128, norm, bundle.count.by), bundle.height) {}

  Grid grid() const {
    return {bundle.count.by * parts.count, static_cast<unsigned>(norm.image.rows), bundle.scratch() + 2 * size_t{bundle.groups.by}};
  }

  DEVICE Cut<T> cut(Place place) const { return {norm, bundle, place.y, bundle.count.rest(place.x)}; }

  DEVICE void phase(Step<0>, Place place, Kept &) const {
    cut(place).template sum<8>(place.thread, 0, parts.pixels, reinterpret_cast<Sum *>(place.scratch));
  }
  DEVICE void phase(Step<1>, Place place, Kept &) const { cut(place).fold(place.thread, reinterpret_cast<Sum *>(place.scratch)); }

  DEVICE void phase(Step<2>, Place place, Kept &) const {
    const float count = static_cast<float>(bundle.width.by) * static_cast<float>(parts.pixels);
    for (unsigned group = place.thread; group < bundle.groups.by; group += THREADS) {
      const Sum sum = cut(place).total(group, reinterpret_cast<const Sum *>(place.scratch));
      const float variance = (sum.squares - sum.off * sum.off / count) / count;
      scales(place)[group] = Scale::of(cut(place).origin(group, 0) + sum.off / count, variance, norm.epsilon);
    }
  }

  DEVICE void phase(Step<3>, Place place, Kept &) const {
    const unsigned part = bundle.count.quotient(place.x);
    cut(place).template normalise<4>(place.thread, parts.begin(part), parts.end(part), scales(place));
  }

  DEVICE Scale *scales(Place place) const { return reinterpret_cast<Scale *>(place.scratch + bundle.scratch()); }
};

// The first of two launches: moments of each group in each part of the image. More parts for a larger image, as many as run at once.
template <typename T> struct Measure {
  static constexpr int PHASES = 3, RESIDENT = 3;
  using Kept = Nothing;
  GroupNorm norm;
  Bundle<T> bundle;
  Parts parts;

  static Parts cut_up(int64_t pixels) { return {pixels, pixels <= 8192 ? 128 : pixels <= 24576 ? pixels / 64 : 384, 8}; }

  explicit Measure(const GroupNorm &norm)
      : norm(norm), bundle(Bundle<T>::all(norm.image.channels, norm.groups)), parts(cut_up(norm.image.pixels)) {}

  Grid grid() const { return {parts.count, static_cast<unsigned>(norm.image.rows), bundle.scratch()}; }

  DEVICE Cut<T> cut(Place place) const { return {norm, bundle, place.y, 0}; }

  DEVICE void phase(Step<0>, Place place, Kept &) const {
    cut(place).template sum<4>(place.thread, parts.begin(place.x), parts.end(place.x), reinterpret_cast<Sum *>(place.scratch));
  }
  DEVICE void phase(Step<1>, Place place, Kept &) const { cut(place).fold(place.thread, reinterpret_cast<Sum *>(place.scratch)); }

  DEVICE void phase(Step<2>, Place place, Kept &) const {
    const unsigned begin = parts.begin(place.x);
    const float count = static_cast<float>(bundle.width.by) * static_cast<float>(parts.end(place.x) - begin);
    Moments *to = reinterpret_cast<Moments *>(norm.partial) + (size_t{place.y} * parts.count + place.x) * bundle.groups.by;
    for (unsigned group = place.thread; group < bundle.groups.by; group += THREADS) {
      const Sum sum = cut(place).total(group, reinterpret_cast<const Sum *>(place.scratch));
      to[group] = {cut(place).origin(group, begin) + sum.off / count, sum.squares - sum.off * sum.off / count};
    }
  }
};

// The second: the image's moments from those of its parts, and what becomes of a bundle in some of its pixels. A block reads the moments of
// its own groups alone.
template <typename T> struct Normalise {
  static constexpr int PHASES = 3, RESIDENT = 3, LOADS = 4;
  static constexpr unsigned FOLDS = 32;
  using Kept = Nothing;
  GroupNorm norm;
  Bundle<T> bundle;
  Parts measured, parts;
  unsigned groups, folds; // of the image; threads that a group has at most

  Normalise(const Measure<T> &measure, const Bundle<T> &bundle)
      : norm(measure.norm), bundle(bundle), measured(measure.parts),
        parts(norm.image.pixels, cuts(384, norm, bundle.count.by), LOADS * bundle.height), groups(measure.bundle.groups.by) {
    folds = THREADS / bundle.groups.by < FOLDS ? THREADS / bundle.groups.by : FOLDS;
  }

  Grid grid() const {
    return {bundle.count.by * parts.count, static_cast<unsigned>(norm.image.rows), 2 * size_t{bundle.groups.by} * (folds + 1)};
  }

  DEVICE Cut<T> cut(Place place) const { return {norm, bundle, place.y, bundle.count.rest(place.x)}; }

  // Each thread: some parts of the image, relative to the first part's mean.
  DEVICE void phase(Step<0>, Place place, Kept &) const {
    const unsigned fold = bundle.groups.quotient(place.thread), group = bundle.groups.rest(place.thread);
    if (fold >= folds) {
      return;
    }
    const Moments *from = moments(place) + group;
    const float width = static_cast<float>(bundle.width.by), origin = from->mean;
    Sum sum{};
    UNROLL_BY(4)
    for (unsigned part = fold; part < measured.count; part += folds) {
      const Moments its = from[size_t{part} * groups];
      const float off = its.mean - origin, count = width * static_cast<float>(measured.end(part) - measured.begin(part));
      sum.off += count * off;
      sum.squares += its.squares + count * off * off;
    }
    reinterpret_cast<Sum *>(place.scratch)[fold * bundle.groups.by + group] = sum;
  }

  DEVICE void phase(Step<1>, Place place, Kept &) const {
    const float count = static_cast<float>(bundle.width.by) * static_cast<float>(measured.pixels);
    for (unsigned group = place.thread; group < bundle.groups.by; group += THREADS) {
      Sum sum{};
      for (unsigned fold = 0; fold < folds; fold++) {
        sum += reinterpret_cast<const Sum *>(place.scratch)[fold * bundle.groups.by + group];
      }
      const float variance = (sum.squares - sum.off * sum.off / count) / count;
      scales(place)[group] = Scale::of(moments(place)[group].mean + sum.off / count, variance, norm.epsilon);
    }
  }

  DEVICE void phase(Step<2>, Place place, Kept &) const {
    const unsigned part = bundle.count.quotient(place.x);
    cut(place).template normalise<LOADS>(place.thread, parts.begin(part), parts.end(part), scales(place));
  }

  // Those of the bundle in the image's first part.
  DEVICE const Moments *moments(Place place) const {
    const size_t first = size_t{place.y} * measured.count * groups + size_t{bundle.count.rest(place.x)} * bundle.groups.by;
    return reinterpret_cast<const Moments *>(norm.partial) + first;
  }

  DEVICE Scale *scales(Place place) const { return reinterpret_cast<Scale *>(place.scratch) + folds * bundle.groups.by; }
};

template <typename T> int group_norm(const GroupNorm &norm, void *stream) {
  const auto bundle = Bundle<T>::small(norm.image.channels, norm.groups);
  if (NormaliseAtOnce<T>::suits(norm.image, bundle)) {
    const NormaliseAtOnce<T> kernel(norm, bundle);
    return run(kernel, kernel.grid(), stream);
  }
  const Measure<T> measure(norm);
  const Normalise<T> normalise(measure, bundle);
  const int status = run(measure, measure.grid(), stream);
  return status ? status : run(normalise, normalise.grid(), stream);
}

template <typename T> int64_t partials(const Image &image, int64_t groups) {
  constexpr int64_t most_channels = 4096, most_groups = THREADS;
  const int64_t channels = image.channels;
  // Numbers of one image are counted in 32 bits.
  const bool fits = channels % 8 == 0 && channels <= most_channels && image.rows > 0 && image.rows <= 65535 && image.pixels > 0 &&
                    image.pixels <= INT32_MAX / channels;
  if (!fits || groups <= 0 || groups > most_groups || channels % groups != 0) {
    return -1;
  }
  const bool at_once = NormaliseAtOnce<T>::suits(image, Bundle<T>::small(channels, groups));
  return at_once ? 0 : 2 * image.rows * Measure<T>::cut_up(image.pixels).count * groups;
}

} // namespace
