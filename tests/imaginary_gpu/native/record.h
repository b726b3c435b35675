// What the parts of the imaginary GPU share: what the environment asks for, streams, and the log of what was called.

#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include <cuda_runtime_api.h>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace imaginary {

struct Settings {
  int devices;         // IMAGINARY_GPU_COUNT, 1
  size_t memory;       // IMAGINARY_GPU_MEMORY in MiB, 80 GiB: of each device
  int pending;         // IMAGINARY_GPU_PENDING, 2: how often an event says that it has not passed yet, unless somebody waits
  bool break_captures; // IMAGINARY_GPU_BREAK_CAPTURES: whatever is captured is lost
  bool verbose;        // IMAGINARY_GPU_VERBOSE: a line for every call, not only totals
};

const Settings &settings();

// How often each thing was done, by what the log calls it.
using Counts = std::map<std::string, unsigned long>;

// What a stream is given between the begin and the end of a capture.
struct Capture {
  int number;
  cudaStreamCaptureMode mode;
  std::thread::id thread;
  bool broken = false;
  Counts counts = {};
};

// Work is numbered as it is given; all up to `done` is known to be done.
struct Stream {
  int number; // 0: the legacy default stream
  int priority;
  unsigned long given = 0;
  unsigned long done = 0;
  Capture *capture = nullptr;
};

Stream &stream_of(cudaStream_t handle);

// Everything here is told by several threads, and calls each other.
std::recursive_mutex &lock();
using Locked = std::lock_guard<std::recursive_mutex>;

// A line of the log that only IMAGINARY_GPU_VERBOSE asks for.
void tell(const std::string &line);

// A line of the log in any case.
void note(const std::string &line);

// Something that a real GPU would refuse, or that latentd means never to do. Without a log it is told on stderr.
void fault(const std::string &what);

// `stream` is given work: `what` is counted, `detail` only told.
void give(cudaStream_t stream, const std::string &what, const std::string &detail = {});

// Writes what was counted under `title`, a line for each thing, and gives the sum.
unsigned long table(const std::string &title, const Counts &counts);

// Whether this thread may not make a call that is unsafe during captures. If so, that is a fault, and breaks them.
bool forbidden(const char *call);

// Notes an error for cudaGetLastError, and gives it.
cudaError_t failed(cudaError_t error);

} // namespace imaginary
