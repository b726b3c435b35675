// Kernels: their names as the compiler registers them, and launches, which must be within the GPU's limits.

#include <cstdlib>
#include <cxxabi.h>
#include <unordered_map>

#include "record.h"

using namespace imaginary;

namespace {

constexpr size_t USUAL_SHARED = 48 << 10; // bytes of a block, unless its kernel was promised more
constexpr size_t MOST_SHARED = 227 << 10;

struct Kernel {
  const char *symbol;
  std::string shown; // once it was launched
  size_t shared = USUAL_SHARED;
};

// By the function of the host that stands for the kernel.
std::unordered_map<const void *, Kernel> &kernels() {
  static auto *all = new std::unordered_map<const void *, Kernel>;
  return *all;
}

struct Configuration {
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;
};

// Of the launch that this thread is about to make.
thread_local Configuration pushed;

std::string demangled(const char *symbol) {
  int status = 0;
  char *text = abi::__cxa_demangle(symbol, nullptr, nullptr, &status);
  const std::string shown = text ? text : symbol;
  std::free(text);
  return shown;
}

std::string geometry(const Configuration &launch) {
  const auto size = [](dim3 of) { return std::to_string(of.x) + "," + std::to_string(of.y) + "," + std::to_string(of.z); };
  return "<<<(" + size(launch.grid) + "), (" + size(launch.block) + "), " + std::to_string(launch.shared) + ">>>";
}

bool fits(const Configuration &launch, const Kernel &kernel) {
  const auto &[grid, block, shared, _] = launch;
  const bool some = grid.x && grid.y && grid.z && block.x && block.y && block.z;
  const bool grids = grid.x <= 2147483647u && grid.y <= 65535 && grid.z <= 65535;
  const bool blocks = block.x <= 1024 && block.y <= 1024 && block.z <= 64 && block.x * block.y * block.z <= 1024;
  return some && grids && blocks && shared <= kernel.shared;
}

cudaError_t launch(const void *function, const Configuration &launch) {
  const Locked locked(lock());
  const auto found = kernels().find(function);
  if (found == kernels().end()) {
    fault("a launch of a kernel that nobody registered");
    return failed(cudaErrorInvalidDeviceFunction);
  }
  Kernel &kernel = found->second;
  if (kernel.shown.empty()) {
    kernel.shown = demangled(kernel.symbol);
  }
  if (!fits(launch, kernel)) {
    fault("a launch beyond the limits: " + kernel.shown + " " + geometry(launch));
    return failed(cudaErrorInvalidConfiguration);
  }
  give(launch.stream, "kernel " + kernel.shown, geometry(launch));
  return cudaSuccess;
}

} // namespace

EXPORT void **__cudaRegisterFatBinary(void *) {
  tell("a library registers its kernels");
  static void *handle = nullptr;
  return &handle;
}

EXPORT void __cudaRegisterFatBinaryEnd(void **) {}

EXPORT void __cudaUnregisterFatBinary(void **) {}

EXPORT char __cudaInitModule(void **) { return 0; }

EXPORT void __cudaRegisterFunction(void **, const char *function, char *, const char *symbol, int, uint3 *, uint3 *, dim3 *, dim3 *, int *) {
  const Locked locked(lock());
  kernels()[function] = {symbol, {}};
}

EXPORT void __cudaRegisterVar(void **, char *, char *, const char *, int, size_t, int, int) {}

EXPORT unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  pushed = {grid, block, shared, stream};
  return 0;
}

EXPORT cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
  *grid = pushed.grid;
  *block = pushed.block;
  *shared = pushed.shared;
  *static_cast<cudaStream_t *>(stream) = pushed.stream;
  return cudaSuccess;
}

// Since CUDA 13 a launch goes by a handle, which here is the function again.
EXPORT cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *function) {
  *kernel = static_cast<cudaKernel_t>(const_cast<void *>(function));
  return cudaSuccess;
}

EXPORT cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **, size_t shared, cudaStream_t stream) {
  return launch(kernel, {grid, block, shared, stream});
}

EXPORT cudaError_t cudaLaunchKernel(const void *function, dim3 grid, dim3 block, void **, size_t shared, cudaStream_t stream) {
  return launch(function, {grid, block, shared, stream});
}

EXPORT cudaError_t cudaLaunchCooperativeKernel(const void *function, dim3 grid, dim3 block, void **, size_t shared, cudaStream_t stream) {
  return launch(function, {grid, block, shared, stream});
}

EXPORT cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *function, void **) {
  return launch(function, {config->gridDim, config->blockDim, config->dynamicSmemBytes, config->stream});
}

EXPORT cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute name, int value) {
  const Locked locked(lock());
  if (name != cudaFuncAttributeMaxDynamicSharedMemorySize) {
    return cudaSuccess;
  }
  const auto found = kernels().find(function);
  if (found == kernels().end() || value < 0 || static_cast<size_t>(value) > MOST_SHARED) {
    fault("a kernel is promised " + std::to_string(value) + " bytes of shared memory");
    return failed(cudaErrorInvalidValue);
  }
  found->second.shared = value;
  return cudaSuccess;
}

EXPORT cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *its, const void *) {
  *its = {};
  its->maxThreadsPerBlock = 1024;
  its->numRegs = 64;
  its->binaryVersion = its->ptxVersion = 90;
  its->maxDynamicSharedSizeBytes = USUAL_SHARED;
  return cudaSuccess;
}

EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *, int, size_t, unsigned) {
  *blocks = 2;
  return cudaSuccess;
}

EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *function, int size, size_t shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, size, shared, 0);
}
