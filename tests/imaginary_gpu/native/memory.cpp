// Memory of the device is an address and a size: nothing can be read or written there, a copy moves nothing, and whoever reads from the
// device gets bytes of 1. That is "true" as a boolean and a tiny number in every floating kind, so that what asks whether all of a
// picture's values are numbers hears that they are. It also is why models of any size load at once. Of what is large only the end is written:
// models that go to main memory would need as much of it as they are large.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <sys/mman.h>

#include "record.h"

using namespace imaginary;

namespace {

struct Block {
  size_t size;
  int device;
};

// By address.
using Blocks = std::map<uintptr_t, Block>;

// Never destroyed, as libtorch frees while the process ends.
Blocks &device_blocks() {
  static auto *blocks = new Blocks;
  return *blocks;
}

// Main memory that the device reaches by itself.
Blocks &pinned_blocks() {
  static auto *blocks = new Blocks;
  return *blocks;
}

std::map<int, size_t> &used() {
  static auto *bytes = new std::map<int, size_t>;
  return *bytes;
}

int current_device() {
  int device = 0;
  cudaGetDevice(&device);
  return device;
}

bool holds(const Blocks &blocks, const void *pointer, size_t size) {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  auto after = blocks.upper_bound(address);
  if (after == blocks.begin()) {
    return false;
  }
  const auto &[begin, block] = *--after;
  return address + size <= begin + block.size;
}

// Address space of `size` bytes; null if there is none.
void *reserve(size_t size, int protection) {
  void *made = mmap(nullptr, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return made == MAP_FAILED ? nullptr : made;
}

// Whether there was a block there, which is gone now.
bool remove(Blocks &blocks, void *pointer) {
  const auto found = blocks.find(reinterpret_cast<uintptr_t>(pointer));
  if (found == blocks.end()) {
    return false;
  }
  munmap(pointer, found->second.size);
  blocks.erase(found);
  return true;
}

constexpr size_t WRITTEN = 1 << 20; // bytes, at most
constexpr const char *READ = "copy device to host";

const char *direction(cudaMemcpyKind kind) {
  switch (kind) {
  case cudaMemcpyHostToDevice:
    return "copy host to device";
  case cudaMemcpyDeviceToHost:
    return READ;
  case cudaMemcpyDeviceToDevice:
    return "copy device to device";
  default:
    return "copy of a kind that is to be found out";
  }
}

// Once a thread works on a stream of its own, a copy that the device cannot make by itself has it wait for the stream. Whoever reads one
// number means to wait, and libtorch does that by way of pageable memory; it still is no work for a capture.
void check_host(const void *host, size_t size, cudaStream_t handle, const std::string &what) {
  const Stream &stream = stream_of(handle);
  if (stream.number == 0 || holds(pinned_blocks(), host, size)) {
    return;
  }
  if (what == READ && size <= sizeof(double) && !stream.capture) {
    note("-- the host waits for stream " + std::to_string(stream.number) + " to read a number");
  } else {
    fault(what + " of " + std::to_string(size) + " bytes by way of pageable memory");
  }
}

void check_device(const void *pointer, size_t size, const std::string &what) {
  if (!holds(device_blocks(), pointer, size)) {
    fault(what + " of " + std::to_string(size) + " bytes beyond the memory that was allocated");
  }
}

cudaError_t copy(void *to, const void *from, size_t size, cudaMemcpyKind kind, cudaStream_t stream) {
  const Locked locked(lock());
  const std::string what = direction(kind);
  give(stream, what, std::to_string(size));
  if (size == 0) {
    return cudaSuccess;
  }
  if (kind == cudaMemcpyHostToDevice) {
    check_host(from, size, stream, what);
  } else {
    check_device(from, size, what);
  }
  if (kind == cudaMemcpyDeviceToHost) {
    check_host(to, size, stream, what);
    const size_t written = std::min(size, WRITTEN);
    std::memset(static_cast<char *>(to) + size - written, 1, written);
  } else {
    check_device(to, size, what);
  }
  return cudaSuccess;
}

} // namespace

EXPORT cudaError_t cudaMalloc(void **pointer, size_t size) {
  if (forbidden("cudaMalloc")) {
    return failed(cudaErrorStreamCaptureUnsupported);
  }
  const Locked locked(lock());
  const int device = current_device();
  void *made = used()[device] + size <= settings().memory ? reserve(size, PROT_NONE) : nullptr;
  tell("cudaMalloc " + std::to_string(size) + (made ? "" : ": refused"));
  if (!made) {
    return failed(cudaErrorMemoryAllocation);
  }
  device_blocks()[reinterpret_cast<uintptr_t>(made)] = {size, device};
  used()[device] += size;
  *pointer = made;
  return cudaSuccess;
}

EXPORT cudaError_t cudaFree(void *pointer) {
  if (!pointer) {
    return cudaSuccess;
  }
  if (forbidden("cudaFree")) {
    return failed(cudaErrorStreamCaptureUnsupported);
  }
  const Locked locked(lock());
  const auto found = device_blocks().find(reinterpret_cast<uintptr_t>(pointer));
  if (found == device_blocks().end()) {
    fault("cudaFree of memory that was not allocated");
    return failed(cudaErrorInvalidValue);
  }
  tell("cudaFree " + std::to_string(found->second.size));
  used()[found->second.device] -= found->second.size;
  remove(device_blocks(), pointer);
  return cudaSuccess;
}

// Also during captures: libtorch asks when memory ends in one.
EXPORT cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
  const Locked locked(lock());
  *total = settings().memory;
  *free = *total - used()[current_device()];
  return cudaSuccess;
}

EXPORT cudaError_t cudaHostAlloc(void **pointer, size_t size, unsigned) {
  if (forbidden("cudaHostAlloc")) {
    return failed(cudaErrorStreamCaptureUnsupported);
  }
  const Locked locked(lock());
  tell("cudaHostAlloc " + std::to_string(size));
  *pointer = reserve(size, PROT_READ | PROT_WRITE);
  if (!*pointer) {
    return failed(cudaErrorMemoryAllocation);
  }
  pinned_blocks()[reinterpret_cast<uintptr_t>(*pointer)] = {size, 0};
  return cudaSuccess;
}

EXPORT cudaError_t cudaFreeHost(void *pointer) {
  if (forbidden("cudaFreeHost")) {
    return failed(cudaErrorStreamCaptureUnsupported);
  }
  const Locked locked(lock());
  if (pointer && !remove(pinned_blocks(), pointer)) {
    fault("cudaFreeHost of memory that was not allocated");
    return failed(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

EXPORT cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *its, const void *pointer) {
  const Locked locked(lock());
  *its = {};
  const bool there = holds(device_blocks(), pointer, 0), pinned = holds(pinned_blocks(), pointer, 0);
  its->type = there ? cudaMemoryTypeDevice : pinned ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
  its->devicePointer = there || pinned ? const_cast<void *>(pointer) : nullptr;
  its->hostPointer = pinned ? const_cast<void *>(pointer) : nullptr;
  return cudaSuccess;
}

EXPORT cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, cudaMemcpyKind kind, cudaStream_t stream) {
  return copy(to, from, size, kind, stream);
}

EXPORT cudaError_t cudaMemcpy(void *to, const void *from, size_t size, cudaMemcpyKind kind) {
  return forbidden("cudaMemcpy") ? failed(cudaErrorStreamCaptureUnsupported) : copy(to, from, size, kind, cudaStreamLegacy);
}

EXPORT cudaError_t cudaMemsetAsync(void *pointer, int, size_t size, cudaStream_t stream) {
  const Locked locked(lock());
  give(stream, "memset", std::to_string(size));
  check_device(pointer, size, "memset");
  return cudaSuccess;
}

EXPORT cudaError_t cudaMemset(void *pointer, int value, size_t size) {
  return forbidden("cudaMemset") ? failed(cudaErrorStreamCaptureUnsupported) : cudaMemsetAsync(pointer, value, size, cudaStreamLegacy);
}
