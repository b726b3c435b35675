#include "record.h"

#include <cstdlib>
#include <fcntl.h>
#include <set>
#include <unistd.h>

namespace imaginary {

namespace {

long number(const char *variable, long usual) {
  const char *value = std::getenv(variable);
  return value && *value ? std::atol(value) : usual;
}

// The log's file, opened by the first line, so that programs that never call CUDA leave none; -1 if there is none.
int log() {
  static const int file = [] {
    const char *path = std::getenv("IMAGINARY_GPU_LOG");
    return path && *path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : -1;
  }();
  return file;
}

// At once and whole: latentd ends without another word, and several processes may share a log.
void put(int file, const std::string &line) {
  const std::string whole = line + "\n";
  if (write(file, whole.data(), whole.size()) < 0) {
    std::abort(); // a log with gaps would prove nothing
  }
}

std::string place(const Stream &stream) { return "stream " + std::to_string(stream.number) + (stream.capture ? " captured" : ""); }

// A thread that has a stream of its own has no business on the default one, which makes it wait for others.
void check_stream(const Stream &stream, const std::string &what) {
  static thread_local bool has_own = false;
  static auto *known = new std::set<int>;
  if (stream.number != 0) {
    has_own = true;
  } else if (has_own) {
    fault(what + " on the legacy default stream, after this thread entered one of its own");
  }
  if (known->insert(stream.number).second) {
    note("-- stream " + std::to_string(stream.number) + " has priority " + std::to_string(stream.priority));
  }
}

} // namespace

const Settings &settings() {
  static const Settings read = {
      static_cast<int>(number("IMAGINARY_GPU_COUNT", 1)),
      static_cast<size_t>(number("IMAGINARY_GPU_MEMORY", 80 << 10)) << 20,
      static_cast<int>(number("IMAGINARY_GPU_PENDING", 2)),
      number("IMAGINARY_GPU_BREAK_CAPTURES", 0) != 0,
      number("IMAGINARY_GPU_VERBOSE", 0) != 0,
  };
  return read;
}

std::recursive_mutex &lock() {
  static auto *mutex = new std::recursive_mutex;
  return *mutex;
}

Stream &stream_of(cudaStream_t handle) {
  static Stream legacy{0, 0};
  return !handle || handle == cudaStreamLegacy || handle == cudaStreamPerThread ? legacy : *reinterpret_cast<Stream *>(handle);
}

void note(const std::string &line) {
  if (log() >= 0) {
    put(log(), line);
  }
}

void tell(const std::string &line) {
  if (settings().verbose) {
    note("   " + line);
  }
}

void fault(const std::string &what) { put(log() >= 0 ? log() : STDERR_FILENO, "!! " + what); }

void give(cudaStream_t handle, const std::string &what, const std::string &detail) {
  const Locked locked(lock());
  Stream &stream = stream_of(handle);
  check_stream(stream, what);
  stream.given++;
  if (stream.capture) {
    stream.capture->counts[what]++;
  }
  tell(place(stream) + ": " + what + (detail.empty() ? "" : " ") + detail);
}

unsigned long table(const std::string &title, const Counts &counts) {
  unsigned long sum = 0;
  for (const auto &[_, count] : counts) {
    sum += count;
  }
  note("== " + title + ": " + std::to_string(sum));
  for (const auto &[what, count] : counts) {
    note(std::to_string(count) + "\t" + what);
  }
  return sum;
}

cudaError_t &last_error() {
  static thread_local cudaError_t last = cudaSuccess;
  return last;
}

cudaError_t failed(cudaError_t error) { return last_error() = error; }

} // namespace imaginary

using namespace imaginary;

// For the libraries beside the runtime: work that is a kernel or several of theirs.
EXPORT void imaginary_library(cudaStream_t stream, const char *call) { give(stream, std::string("library ") + call); }

// For functions that there is nothing to say of.
EXPORT void imaginary_tell(const char *call) { tell(call); }

// For functions that exist and do nothing: whoever calls one gets an error, and should write it.
EXPORT void imaginary_missing(const char *call) { fault(std::string(call) + " is not part of the imaginary GPU"); }

EXPORT int imaginary_devices() { return settings().devices; }

EXPORT cudaError_t cudaGetLastError() {
  const cudaError_t last = last_error();
  last_error() = cudaSuccess;
  return last;
}

EXPORT cudaError_t cudaPeekAtLastError() { return last_error(); }

EXPORT const char *cudaGetErrorName(cudaError_t error) { return error == cudaSuccess ? "cudaSuccess" : "cudaErrorImaginary"; }

EXPORT const char *cudaGetErrorString(cudaError_t error) {
  switch (error) {
  case cudaSuccess:
    return "no error";
  case cudaErrorMemoryAllocation:
    return "out of memory";
  case cudaErrorNoDevice:
    return "no CUDA-capable device is detected";
  case cudaErrorInvalidDevice:
    return "invalid device ordinal";
  case cudaErrorNotReady:
    return "device not ready";
  case cudaErrorInvalidConfiguration:
    return "invalid configuration argument";
  case cudaErrorInvalidValue:
    return "invalid argument";
  case cudaErrorStreamCaptureUnsupported:
    return "operation not permitted when stream is capturing";
  case cudaErrorStreamCaptureInvalidated:
    return "operation failed due to a previous error during capture";
  default:
    return "an error of the imaginary GPU";
  }
}
