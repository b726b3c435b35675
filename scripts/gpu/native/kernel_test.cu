// The kernels of native/kernels.cu on a GPU, by their C interface, against double precision on the processor: at odd sizes, with guards around
// every tensor, in a stream of its own; small enough for compute-sanitizer. Prints what is off and a line of JSON; 1 if anything is.

#include "kernels.cu"

#include <algorithm>

#include "numbers.h"

namespace {

// What the tests of a kernel found.
struct Found {
  int cases = 0, wrong = 0;
  double worst = 0; // of what a kind's rounding explains
};

// As much as rounding explains, of 1 + |value|.
double grain(Kind kind) { return kind == F16 ? 1.2e-3 : kind == F32 ? 8e-6 : 1e-2; }

const char *name_of(Kind kind) { return kind == F16 ? "f16" : kind == F32 ? "f32" : "bf16"; }

cudaStream_t stream;

// Waits for a kernel that was given to the GPU.
void finish(int status, const char *kernel) {
  check(static_cast<cudaError_t>(status), kernel);
  check(cudaStreamSynchronize(stream), kernel);
}

// Holds `tensor` to what it should be; `what` names the case.
template <typename Expected> void compare(Found &found, const Tensor &tensor, Kind kind, const char *what, Expected expected) {
  const std::vector<float> values = tensor.now();
  double worst = values.empty() ? INFINITY : 0;
  for (size_t i = 0; i < values.size(); i++) {
    const double should = expected(i), off = std::fabs(values[i] - should) / (1 + std::fabs(should)) / grain(kind);
    worst = off == off ? std::max(worst, off) : INFINITY;
  }
  found.cases++;
  found.worst = std::max(found.worst, worst);
  if (!(worst <= 1)) {
    found.wrong++;
    std::printf("WRONG: %s in %s: %s\n", what, name_of(kind), values.empty() ? "written beyond its end" : "off");
  }
}

// Mean and 1 / deviation of `count` numbers.
template <typename Value> std::pair<double, double> moments(size_t count, double epsilon, Value value) {
  double mean = 0, variance = 0;
  for (size_t i = 0; i < count; i++) {
    mean += value(i) / double(count);
  }
  for (size_t i = 0; i < count; i++) {
    variance += (value(i) - mean) * (value(i) - mean) / double(count);
  }
  return {mean, 1 / std::sqrt(variance + epsilon)};
}

void group_norm(Found &found, Kind kind, Image image, int64_t groups, bool lead, bool shift, bool silu) {
  const int64_t channels = image.channels, pixels = image.pixels, stride = channels + 5, each = channels / groups;
  const int64_t partials = latentd_kernel_partials(&image, groups);
  const Tensor x(kind, image.rows * pixels * channels, 2, 1), y(kind, image.rows * pixels * channels);
  const Tensor weight(kind, channels, 1), bias(kind, channels, 1), leads(kind, channels, 1);
  const Tensor shifts(kind, image.rows * stride + 8, 1), partial(F32, std::max<int64_t>(partials, 0));
  // A shift may begin anywhere: here a number behind what is aligned.
  const GroupNorm norm{image,       x.at(),    lead ? leads.at() : nullptr,         shift ? shifts.at(1) : nullptr, stride, weight.at(), bias.at(), y.at(),
                       static_cast<float *>(partial.at()), groups, 1e-5f, silu};
  finish(latentd_kernel_group_norm(&norm, stream), "group norm");
  const auto shifted = [&](int64_t row, int64_t pixel, int64_t channel) {
    const double more = (lead ? leads[channel] : 0) + (shift ? shifts[row * stride + channel + 1] : 0);
    return x[(row * pixels + pixel) * channels + channel] + more;
  };
  std::vector<std::pair<double, double>> known;
  for (int64_t group = 0; group < image.rows * groups; group++) {
    const auto value = [&](size_t i) { return shifted(group / groups, i / each, group % groups * each + i % each); };
    known.push_back(moments(pixels * each, 1e-5, value));
  }
  char what[160];
  std::snprintf(what, sizeof what, "group norm of %ld rows, %ld pixels, %ld channels, %ld groups%s%s%s", long(image.rows), long(pixels), long(channels),
                long(groups), lead ? ", lead" : "", shift ? ", shift" : "", silu ? ", SiLU" : "");
  compare(found, y, kind, what, [&](size_t i) {
    const int64_t channel = i % channels, pixel = i / channels % pixels, row = i / channels / pixels;
    const auto [mean, scale] = known[row * groups + channel / each];
    const double value = (shifted(row, pixel, channel) - mean) * scale * weight[channel] + bias[channel];
    return silu ? value / (1 + std::exp(-value)) : value;
  });
  if (partials > 0) {
    const bool beyond = partial.now().empty();
    found.cases++;
    found.wrong += beyond;
    if (beyond) {
      std::printf("WRONG: %s in %s: wrote beyond its partial sums\n", what, name_of(kind));
    }
  }
}

void group_norms(Found &found, Kind kind) {
  constexpr int64_t most = 3'000'000; // numbers of a case: the processor has to follow
  for (int64_t channels : {8, 24, 64, 320, 960, 2056, 2560, 4096}) {
    for (int64_t pixels : {1, 7, 8, 65, 273, 1025}) {
      for (int64_t rows : {1, 3}) {
        for (int64_t groups : {int64_t{1}, int64_t{8}, channels / 8}) {
          const bool fits = channels % groups == 0 && groups <= 256 && channels * pixels * rows <= most;
          if (fits && pixels * (channels / groups) >= 8) { // of fewer numbers the variance is next to nothing
            const unsigned how = generator();
            group_norm(found, kind, {rows, pixels, channels, kind}, groups, how & 1, how & 2, how & 4);
          }
        }
      }
    }
  }
}

void geglus(Found &found, Kind kind) {
  for (int64_t width : {8, 24, 1280, 5120}) {
    for (int64_t rows : {1, 77, 1025}) {
      const Image image{rows, 1, width, kind};
      const Tensor x(kind, rows * 2 * width, 2), y(kind, rows * width);
      finish(latentd_kernel_geglu(&image, x.at(), y.at(), stream), "GEGLU");
      char what[80];
      std::snprintf(what, sizeof what, "GEGLU of %ld rows of %ld", long(rows), long(width));
      compare(found, y, kind, what, [&](size_t i) {
        const double value = x[i / width * 2 * width + i % width], gate = x[i / width * 2 * width + width + i % width];
        return value * 0.5 * gate * (1 + std::erf(gate / std::sqrt(2.0)));
      });
    }
  }
}

void layer_norms(Found &found, Kind kind) {
  for (int64_t width : {int64_t{8}, int64_t{24}, int64_t{320}, int64_t{768}, int64_t{1280}, MOST_WIDTH}) {
    for (int64_t rows : {1, 77, 1025}) {
      const size_t count = rows * width;
      const Tensor x(kind, count, 2, 1), more(kind, count, 1), weight(kind, width, 1), bias(kind, width, 1), sum(kind, count), y(kind, count);
      const AddLayerNorm norm{rows, width, kind, x.at(), more.at(), weight.at(), bias.at(), sum.at(), y.at(), 1e-5f};
      finish(latentd_kernel_add_layer_norm(&norm, stream), "layer norm");
      char what[80];
      std::snprintf(what, sizeof what, "the sum before a layer norm of %ld rows of %ld", long(rows), long(width));
      compare(found, sum, kind, what, [&](size_t i) { return x[i] + more[i]; });
      // What it normalises is the sum as it is written, which was just held to what it should be.
      const std::vector<float> sums = sum.now();
      std::vector<std::pair<double, double>> known;
      for (size_t at = 0; at < sums.size(); at += width) {
        known.push_back(moments(width, 1e-5, [&](size_t i) { return double(sums[at + i]); }));
      }
      std::snprintf(what, sizeof what, "layer norm of %ld rows of %ld", long(rows), long(width));
      compare(found, y, kind, what, [&](size_t i) {
        if (sums.empty()) {
          return double(NAN);
        }
        const auto [mean, scale] = known[i / width];
        return (sums[i] - mean) * scale * weight[i % width] + bias[i % width];
      });
    }
  }
}

void residuals(Found &found, Kind kind) {
  for (int64_t channels : {8, 24, 320}) {
    for (int64_t pixels : {1, 65, 1025}) {
      const Image image{3, pixels, channels, kind};
      const size_t count = image.rows * pixels * channels;
      const Tensor x(kind, count, 1), y(kind, count, 1), bias(kind, channels, 1), other(kind, channels, 1);
      const bool two = pixels > 1, image_too = pixels != 65;
      finish(latentd_kernel_add_residual(&image, image_too ? x.at() : nullptr, bias.at(), two ? other.at() : nullptr, y.at(), stream), "residual");
      char what[80];
      std::snprintf(what, sizeof what, "residual of %ld pixels, %ld channels", long(pixels), long(channels));
      compare(found, y, kind, what,
              [&](size_t i) { return y[i] + (image_too ? x[i] : 0) + bias[i % channels] + (two ? other[i % channels] : 0); });
    }
  }
}

} // namespace

int main() {
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream");
  struct Test {
    const char *name;
    void (*run)(Found &, Kind);
  };
  bool sound = true;
  for (const Test &test : {Test{"group norm", group_norms}, Test{"layer norm", layer_norms}, Test{"GEGLU", geglus}, Test{"residual", residuals}}) {
    for (Kind kind : {F16, F32, BF16}) {
      Found found;
      test.run(found, kind);
      sound &= found.wrong == 0;
      // JSON has no infinity.
      std::printf("{\"kernel\": \"%s\", \"dtype\": \"%s\", \"cases\": %d, \"wrong\": %d, \"worst\": %.3g}\n", test.name, name_of(kind), found.cases,
                  found.wrong, std::min(found.worst, 1e9));
    }
  }
  return sound ? 0 : 1;
}
