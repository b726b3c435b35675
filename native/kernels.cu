// What libtorch does in several passes over memory, in as few as there can be: a GPU that waits for memory is idle. Images keep their
// channels last, where libtorch's own normalisation puts them first, and the next convolution last again.
//
// Sums are in f32 and in an order that depends on the size of an image alone: a row gets the same bits whoever shares its evaluation.

#include "kernels.h"

#include "grid.h"

namespace {

constexpr int MOST_CHUNKS = 128, LEAST_CHUNK = 8;
constexpr int64_t MOST_CHANNELS = 4096, MOST_GROUPS = THREADS;

DEVICE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// An image's pixels in equal chunks, the last of which may be shorter: a block each.
struct Chunks {
  int64_t pixels, size, count;

  explicit Chunks(int64_t pixels) : pixels(pixels) {
    size = (pixels + MOST_CHUNKS - 1) / MOST_CHUNKS;
    size = size < LEAST_CHUNK ? LEAST_CHUNK : size;
    count = (pixels + size - 1) / size;
  }

  DEVICE int64_t begin(int64_t chunk) const { return chunk * size; }
  DEVICE int64_t end(int64_t chunk) const { return least(pixels, (chunk + 1) * size); }
  DEVICE int64_t length(int64_t chunk) const { return end(chunk) - begin(chunk); }
};

// Which packs of channels a thread has, `first`, `first + width` and so on, and which pixels of a chunk, every `height`th.
template <typename T> struct Share {
  int64_t packs, first;
  int width, height, row;

  DEVICE Share(int64_t channels, int thread) : packs(channels / Pack<T>::SIZE) {
    width = static_cast<int>(least(packs, THREADS));
    height = THREADS / width;
    row = thread / width;
    first = row < height ? thread % width : packs; // threads that are left over have none
  }
};

// What a group of channels has in one chunk: its mean, and the sum of squares of what is off the mean. The image's are computed from
// these (Chan, Golub and LeVeque 1979), so that a large mean costs no precision.
struct Moments {
  float mean, squares;
};

// The first half: moments of each group in each chunk.
template <typename T> struct Measure {
  GroupNorm norm;
  Chunks chunks;

  static size_t scratch(int64_t channels) {
    const int64_t width = channels / Pack<T>::SIZE < THREADS ? channels / Pack<T>::SIZE : THREADS;
    return 2 * channels * (THREADS / width);
  }

  DEVICE int64_t at(Place place, int64_t pixel) const {
    return ((place.y * norm.image.pixels) + pixel) * norm.image.channels;
  }

  // Each thread: of each of its channels, sums of what is off the chunk's first pixel, and of its square.
  DEVICE void first(Place place, float *sums) const {
    const int64_t channels = norm.image.channels;
    const Share<T> share(channels, place.thread);
    constexpr int size = Pack<T>::SIZE;
    for (int64_t pack = share.first; pack < share.packs; pack += share.width) {
      const Pack<T> origin = load<T>(norm.x, at(place, chunks.begin(place.x)) / size + pack);
      float sum[size] = {}, squares[size] = {};
      for (int64_t pixel = chunks.begin(place.x) + share.row; pixel < chunks.end(place.x); pixel += share.height) {
        const Pack<T> x = load<T>(norm.x, at(place, pixel) / size + pack);
        for (int i = 0; i < size; i++) {
          const float off = wide(x.at[i]) - wide(origin.at[i]);
          sum[i] += off;
          squares[i] += off * off;
        }
      }
      for (int i = 0; i < size; i++) {
        float *mine = sums + 2 * (share.row * channels + pack * size + i);
        mine[0] = sum[i];
        mine[1] = squares[i];
      }
    }
  }

  // Each channel: its moments, in place of the first row of sums.
  DEVICE void second(Place place, float *sums) const {
    const int64_t channels = norm.image.channels;
    const int height = Share<T>(channels, 0).height;
    const float count = static_cast<float>(chunks.length(place.x));
    for (int64_t channel = place.thread; channel < channels; channel += THREADS) {
      float sum = 0, squares = 0;
      for (int row = 0; row < height; row++) {
        sum += sums[2 * (row * channels + channel)];
        squares += sums[2 * (row * channels + channel) + 1];
      }
      const float origin = wide(static_cast<const T *>(norm.x)[at(place, chunks.begin(place.x)) + channel]);
      sums[2 * channel] = origin + added(place, channel) + sum / count;
      sums[2 * channel + 1] = squares - sum * sum / count;
    }
  }

  // Each group: the moments of its channels together.
  DEVICE void third(Place place, float *sums) const {
    const int64_t width = norm.image.channels / norm.groups;
    const float count = static_cast<float>(chunks.length(place.x));
    for (int64_t group = place.thread; group < norm.groups; group += THREADS) {
      const float *mine = sums + 2 * group * width;
      float mean = 0, squares = 0;
      for (int64_t i = 0; i < width; i++) {
        mean += mine[2 * i];
      }
      mean /= static_cast<float>(width);
      for (int64_t i = 0; i < width; i++) {
        const float off = mine[2 * i] - mean;
        squares += mine[2 * i + 1] + count * off * off;
      }
      const int64_t to = (place.y * chunks.count + place.x) * norm.groups + group;
      reinterpret_cast<Moments *>(norm.partial)[to] = {mean, squares};
    }
  }

  // What is added to a channel before it is normalised.
  DEVICE float added(Place place, int64_t channel) const {
    const float lead = norm.lead ? wide(static_cast<const T *>(norm.lead)[channel]) : 0;
    return lead + (norm.shift ? wide(static_cast<const T *>(norm.shift)[place.y * norm.shift_stride + channel]) : 0);
  }
};

// The second half: the image's moments from those of its chunks, and what becomes of the pixels of one chunk.
template <typename T> struct Normalise {
  Measure<T> measured;

  // Each thread: a part of a group's chunks, relative to the first chunk's mean.
  DEVICE void first(Place place, float *sums) const {
    const GroupNorm &norm = measured.norm;
    const int64_t parts = THREADS / norm.groups, group = place.thread % norm.groups, part = place.thread / norm.groups;
    if (part >= parts) {
      return;
    }
    const Moments *from = moments(place) + group;
    const float width = static_cast<float>(norm.image.channels / norm.groups);
    float sum = 0, squares = 0;
    for (int64_t chunk = part; chunk < measured.chunks.count; chunk += parts) {
      const Moments its = from[chunk * norm.groups];
      const float off = its.mean - from->mean, count = width * static_cast<float>(measured.chunks.length(chunk));
      sum += count * off;
      squares += its.squares + count * off * off;
    }
    sums[2 * place.thread] = sum;
    sums[2 * place.thread + 1] = squares;
  }

  // Each group: its mean, and what to multiply by, behind the parts.
  DEVICE void second(Place place, float *sums) const {
    const GroupNorm &norm = measured.norm;
    const int64_t parts = THREADS / norm.groups;
    const float count = static_cast<float>(norm.image.channels / norm.groups) * static_cast<float>(norm.image.pixels);
    for (int64_t group = place.thread; group < norm.groups; group += THREADS) {
      float sum = 0, squares = 0;
      for (int64_t part = 0; part < parts; part++) {
        sum += sums[2 * (part * norm.groups + group)];
        squares += sums[2 * (part * norm.groups + group) + 1];
      }
      const float variance = (squares - sum * sum / count) / count;
      sums[2 * THREADS + 2 * group] = moments(place)[group].mean + sum / count;
      sums[2 * THREADS + 2 * group + 1] = 1 / sqrtf((variance < 0 ? 0 : variance) + norm.epsilon);
    }
  }

  // Each thread: its channels of its pixels.
  DEVICE void third(Place place, float *sums) const {
    const GroupNorm &norm = measured.norm;
    const Chunks &chunks = measured.chunks;
    const Share<T> share(norm.image.channels, place.thread);
    constexpr int size = Pack<T>::SIZE;
    const int64_t width = norm.image.channels / norm.groups;
    for (int64_t pack = share.first; pack < share.packs; pack += share.width) {
      const Pack<T> weight = load<T>(norm.weight, pack), bias = load<T>(norm.bias, pack);
      float scale[size], offset[size];
      for (int i = 0; i < size; i++) {
        const int64_t channel = pack * size + i;
        const float *its = sums + 2 * THREADS + 2 * (channel / width);
        scale[i] = its[1] * wide(weight.at[i]);
        offset[i] = wide(bias.at[i]) + (measured.added(place, channel) - its[0]) * scale[i];
      }
      for (int64_t pixel = chunks.begin(place.x) + share.row; pixel < chunks.end(place.x); pixel += share.height) {
        const int64_t at = measured.at(place, pixel) / size + pack;
        const Pack<T> x = load<T>(norm.x, at);
        Pack<T> made;
        for (int i = 0; i < size; i++) {
          const float y = wide(x.at[i]) * scale[i] + offset[i];
          made.at[i] = narrow<T>(norm.silu ? y / (1 + expf(-y)) : y);
        }
        store(norm.y, at, made);
      }
    }
  }

  DEVICE const Moments *moments(Place place) const {
    return reinterpret_cast<const Moments *>(measured.norm.partial) + place.y * measured.chunks.count * measured.norm.groups;
  }
};

// Kernels of one phase: packs in any order, a few to a thread.
template <typename T> struct Plain {
  Image image;

  DEVICE void second(Place, float *) const {}
  DEVICE void third(Place, float *) const {}

  // 32 bits suffice for 64 GB, and are divided much faster.
  DEVICE unsigned packs() const { return static_cast<unsigned>(image.rows * image.pixels * image.channels / Pack<T>::SIZE); }
  DEVICE unsigned width() const { return static_cast<unsigned>(image.channels / Pack<T>::SIZE); }
  DEVICE unsigned begin(Place place) const { return place.x * THREADS + static_cast<unsigned>(place.thread); }
};

template <typename T> struct Geglu : Plain<T> {
  const void *x;
  void *y;
  unsigned stride;

  DEVICE void first(Place place, float *) const {
    const unsigned width = this->width();
    for (unsigned at = this->begin(place); at < this->packs(); at += stride) {
      const unsigned from = at / width * 2 * width + at % width;
      Pack<T> value = load<T>(x, from);
      const Pack<T> gate = load<T>(x, from + width);
      for (int i = 0; i < Pack<T>::SIZE; i++) {
        const float g = wide(gate.at[i]);
        value.at[i] = narrow<T>(wide(value.at[i]) * (0.5f * g * (1 + erff(g * 0.70710678118654752f))));
      }
      store(y, at, value);
    }
  }
};

template <typename T> struct Join : Plain<T> {
  const void *x, *bias, *other;
  void *y;
  unsigned stride;

  DEVICE void first(Place place, float *) const {
    const unsigned width = this->width();
    for (unsigned at = this->begin(place); at < this->packs(); at += stride) {
      Pack<T> sum = load<T>(y, at);
      const Pack<T> more = load<T>(x, at), mine = load<T>(bias, at % width), its = other ? load<T>(other, at % width) : Pack<T>{};
      for (int i = 0; i < Pack<T>::SIZE; i++) {
        const float added = wide(mine.at[i]) + (other ? wide(its.at[i]) : 0);
        sum.at[i] = narrow<T>(wide(sum.at[i]) + (wide(more.at[i]) + added));
      }
      store(y, at, sum);
    }
  }
};

// Blocks for `packs` packs, at most so many that each has some work to do.
unsigned blocks(int64_t packs) {
  const int64_t wanted = (packs + THREADS - 1) / THREADS;
  return static_cast<unsigned>(wanted < 4096 ? wanted : 4096);
}

constexpr int UNKNOWN = 1; // cudaErrorInvalidValue

template <typename T> int group_norm(const GroupNorm &norm, void *stream) {
  const Measure<T> measure{norm, Chunks(norm.image.pixels)};
  const auto chunks = static_cast<unsigned>(measure.chunks.count), rows = static_cast<unsigned>(norm.image.rows);
  const int status = run(measure, {chunks, rows, Measure<T>::scratch(norm.image.channels)}, stream);
  return status ? status : run(Normalise<T>{measure}, {chunks, rows, 4 * THREADS}, stream);
}

template <typename T> int geglu(const Image &image, const void *x, void *y, void *stream) {
  const unsigned count = blocks(image.rows * image.pixels * image.channels / Pack<T>::SIZE);
  return run(Geglu<T>{{image}, x, y, count * THREADS}, {count, 1, 0}, stream);
}

template <typename T> int join(const Image &image, const void *x, const void *bias, const void *other, void *y, void *stream) {
  const unsigned count = blocks(image.rows * image.pixels * image.channels / Pack<T>::SIZE);
  return run(Join<T>{{image}, x, bias, other, y, count * THREADS}, {count, 1, 0}, stream);
}

} // namespace

int64_t latentd_kernel_partials(const Image *image, int64_t groups) {
  const int64_t channels = image->channels;
  const bool fits = channels % 8 == 0 && channels <= MOST_CHANNELS && image->rows <= 65535 && image->pixels > 0;
  const bool even = groups > 0 && groups <= MOST_GROUPS && channels % groups == 0;
  return fits && even ? 2 * image->rows * Chunks(image->pixels).count * groups : 0;
}

#define BY_KIND(function, ...)                                                                                                             \
  switch (image->kind) {                                                                                                                   \
  case F16:                                                                                                                                \
    return function<f16>(__VA_ARGS__);                                                                                                     \
  case F32:                                                                                                                                \
    return function<float>(__VA_ARGS__);                                                                                                   \
  case BF16:                                                                                                                               \
    return function<bf16>(__VA_ARGS__);                                                                                                    \
  }                                                                                                                                        \
  return UNKNOWN

int latentd_kernel_group_norm(const GroupNorm *norm, void *stream) {
  const Image *image = &norm->image;
  BY_KIND(group_norm, *norm, stream);
}

int latentd_kernel_geglu(const Image *image, const void *x, void *y, void *stream) { BY_KIND(geglu, *image, x, y, stream); }

int latentd_kernel_join(const Image *image, const void *x, const void *bias, const void *other, void *y, void *stream) {
  BY_KIND(join, *image, x, bias, other, y, stream);
}
