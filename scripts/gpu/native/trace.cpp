// How long each kernel of a program takes, by CUPTI, also of those that a CUDA graph replays:
//
//   CUDA_INJECTION64_PATH=libtrace.so TRACE_OUT=FILE PROGRAM
//
// FILE is written at the end, in columns between tabs: the graph (0: none), how often it was replayed, the time from the first kernel of a replay to the
// end of the last (median, in microseconds), then of one kernel in it: calls a replay, microseconds a replay, grid, block, registers, shared memory,
// name. What is in no graph counts as one replay.

#include <cupti.h>
#include <cxxabi.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace {

struct Sum {
  unsigned long calls = 0;
  double ns = 0;
  std::string shape; // of the last launch
};

struct Span {
  uint64_t begin = UINT64_MAX, end = 0;
};

struct Graph {
  std::map<std::string, Sum> kernels;
  std::map<uint32_t, Span> replays; // by the call that launched them
};

struct Trace {
  std::mutex lock;
  std::map<uint32_t, Graph> graphs;
  size_t dropped = 0;
};

// CUPTI's threads and the end of the process come in no order: it is never taken down.
Trace &trace() {
  static auto *kept = new Trace();
  return *kept;
}

void note(uint32_t graph, uint32_t launch, const std::string &name, const std::string &shape, uint64_t begin, uint64_t end) {
  Graph &into = trace().graphs[graph];
  Sum &sum = into.kernels[name];
  sum.calls++;
  sum.ns += double(end - begin);
  sum.shape = shape;
  Span &span = into.replays[graph ? launch : 0];
  span.begin = std::min(span.begin, begin);
  span.end = std::max(span.end, end);
}

void take(const CUpti_Activity *record) {
  if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
    const auto *kernel = reinterpret_cast<const CUpti_ActivityKernel10 *>(record);
    char shape[128];
    std::snprintf(shape, sizeof shape, "%dx%dx%d\t%d\t%u\t%d", kernel->gridX, kernel->gridY, kernel->gridZ, kernel->blockX * kernel->blockY * kernel->blockZ,
                  kernel->registersPerThread, kernel->dynamicSharedMemory + kernel->staticSharedMemory);
    note(kernel->graphId, kernel->correlationId, kernel->name ? kernel->name : "?", shape, kernel->start, kernel->end);
  } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
    const auto *copy = reinterpret_cast<const CUpti_ActivityMemcpy6 *>(record);
    note(copy->graphId, copy->correlationId, "memcpy, kind " + std::to_string(copy->copyKind), "\t\t\t", copy->start, copy->end);
  } else if (record->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
    const auto *set = reinterpret_cast<const CUpti_ActivityMemset4 *>(record);
    note(set->graphId, set->correlationId, "memset", "\t\t\t", set->start, set->end);
  }
}

void CUPTIAPI want(uint8_t **buffer, size_t *size, size_t *most) {
  *size = 8 << 20;
  *buffer = static_cast<uint8_t *>(std::aligned_alloc(64, *size));
  *most = 0;
}

void CUPTIAPI got(CUcontext, uint32_t, uint8_t *buffer, size_t, size_t valid) {
  {
    const std::lock_guard<std::mutex> guard(trace().lock);
    for (CUpti_Activity *record = nullptr; cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS;) {
      take(record);
    }
    size_t dropped = 0;
    cuptiActivityGetNumDroppedRecords(nullptr, 0, &dropped);
    trace().dropped += dropped;
  }
  std::free(buffer);
}

std::string readable(const std::string &name) {
  int status = 0;
  char *text = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  std::string found = text ? text : name;
  std::free(text);
  return found.substr(0, 300); // templates go on for pages
}

double median(const std::map<uint32_t, Span> &replays) {
  std::vector<double> times;
  for (const auto &[launch, span] : replays) {
    times.push_back(double(span.end - span.begin) / 1e3);
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

void write_all() {
  cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
  const std::lock_guard<std::mutex> guard(trace().lock);
  const char *path = std::getenv("TRACE_OUT");
  std::FILE *file = path ? std::fopen(path, "w") : stderr;
  if (!file) {
    return;
  }
  std::fprintf(file, "# records that were dropped: %zu\n# graph\treplays\tspan us\tcalls\tus\tgrid\tblock\tregisters\tshared\tname\n", trace().dropped);
  for (const auto &[number, graph] : trace().graphs) {
    const double replays = double(graph.replays.size()), span = median(graph.replays);
    std::vector<std::pair<std::string, Sum>> kernels(graph.kernels.begin(), graph.kernels.end());
    std::sort(kernels.begin(), kernels.end(), [](const auto &a, const auto &b) { return a.second.ns > b.second.ns; });
    for (const auto &[name, sum] : kernels) {
      std::fprintf(file, "%u\t%.0f\t%.1f\t%.2f\t%.2f\t%s\t%s\n", number, replays, span, double(sum.calls) / replays, sum.ns / 1e3 / replays,
                   sum.shape.c_str(), readable(name).c_str());
    }
  }
  if (path) {
    std::fclose(file);
  }
}

} // namespace

// CUDA's driver calls it when it is initialised, and goes on if it gives 1.
extern "C" __attribute__((visibility("default"))) int InitializeInjection() {
  cuptiActivityRegisterCallbacks(want, got);
  for (CUpti_ActivityKind kind : {CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY, CUPTI_ACTIVITY_KIND_MEMSET}) {
    cuptiActivityEnable(kind);
  }
  cuptiActivityFlushPeriod(200); // milliseconds: what comes before the end does not depend on how that goes
  std::atexit(write_all);
  return 1;
}
