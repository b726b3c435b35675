// What there is to know of the GPU: that of an H100 SXM, as NVIDIA's tables and CUDA's deviceQuery have it.

#include <cstring>
#include <dlfcn.h>

#include "record.h"

using namespace imaginary;

namespace {

thread_local int current = 0;

constexpr int VERSION = 13000; // of CUDA, for runtime and driver

struct Attribute {
  cudaDeviceAttr name;
  int value;
};

constexpr Attribute ATTRIBUTES[] = {
    {cudaDevAttrMaxThreadsPerBlock, 1024},
    {cudaDevAttrMaxBlockDimX, 1024},
    {cudaDevAttrMaxBlockDimY, 1024},
    {cudaDevAttrMaxBlockDimZ, 64},
    {cudaDevAttrMaxGridDimX, 2147483647},
    {cudaDevAttrMaxGridDimY, 65535},
    {cudaDevAttrMaxGridDimZ, 65535},
    {cudaDevAttrMaxSharedMemoryPerBlock, 49152},
    {cudaDevAttrMaxSharedMemoryPerBlockOptin, 232448},
    {cudaDevAttrMaxSharedMemoryPerMultiprocessor, 233472},
    {cudaDevAttrReservedSharedMemoryPerBlock, 1024},
    {cudaDevAttrWarpSize, 32},
    {cudaDevAttrMultiProcessorCount, 132},
    {cudaDevAttrMaxThreadsPerMultiProcessor, 2048},
    {cudaDevAttrMaxBlocksPerMultiprocessor, 32},
    {cudaDevAttrMaxRegistersPerBlock, 65536},
    {cudaDevAttrMaxRegistersPerMultiprocessor, 65536},
    {cudaDevAttrL2CacheSize, 52428800},
    {cudaDevAttrComputeCapabilityMajor, 9},
    {cudaDevAttrComputeCapabilityMinor, 0},
    {cudaDevAttrUnifiedAddressing, 1},
    {cudaDevAttrCanMapHostMemory, 1},
    {cudaDevAttrConcurrentKernels, 1},
    {cudaDevAttrCooperativeLaunch, 1},
    {cudaDevAttrAsyncEngineCount, 3},
    {cudaDevAttrGlobalMemoryBusWidth, 5120},
    {cudaDevAttrTextureAlignment, 512},
};

int attribute(cudaDeviceAttr name) {
  for (const auto &known : ATTRIBUTES) {
    if (known.name == name) {
      return known.value;
    }
  }
  tell("attribute " + std::to_string(name) + " of the device is taken for 0");
  return 0;
}

bool exists(int device) { return device >= 0 && device < settings().devices; }

} // namespace

EXPORT cudaError_t cudaGetDeviceCount(int *count) {
  *count = settings().devices;
  return *count > 0 ? cudaSuccess : failed(cudaErrorNoDevice);
}

EXPORT cudaError_t cudaGetDevice(int *device) {
  *device = current;
  return cudaSuccess;
}

EXPORT cudaError_t cudaSetDevice(int device) {
  if (!exists(device)) {
    return failed(cudaErrorInvalidDevice);
  }
  current = device;
  return cudaSuccess;
}

EXPORT cudaError_t cudaDriverGetVersion(int *version) {
  *version = settings().devices > 0 ? VERSION : 0;
  return cudaSuccess;
}

EXPORT cudaError_t cudaRuntimeGetVersion(int *version) {
  *version = VERSION;
  return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr name, int device) {
  *value = attribute(name);
  return exists(device) ? cudaSuccess : failed(cudaErrorInvalidDevice);
}

EXPORT cudaError_t cudaGetDeviceProperties(cudaDeviceProp *its, int device) {
  if (!exists(device)) {
    return failed(cudaErrorInvalidDevice);
  }
  *its = {};
  std::strcpy(its->name, "NVIDIA H100 80GB HBM3 (imaginary)");
  its->totalGlobalMem = settings().memory;
  its->major = attribute(cudaDevAttrComputeCapabilityMajor);
  its->minor = attribute(cudaDevAttrComputeCapabilityMinor);
  its->multiProcessorCount = attribute(cudaDevAttrMultiProcessorCount);
  its->warpSize = attribute(cudaDevAttrWarpSize);
  its->maxThreadsPerBlock = attribute(cudaDevAttrMaxThreadsPerBlock);
  its->maxThreadsPerMultiProcessor = attribute(cudaDevAttrMaxThreadsPerMultiProcessor);
  its->maxBlocksPerMultiProcessor = attribute(cudaDevAttrMaxBlocksPerMultiprocessor);
  const cudaDeviceAttr blocks[] = {cudaDevAttrMaxBlockDimX, cudaDevAttrMaxBlockDimY, cudaDevAttrMaxBlockDimZ};
  const cudaDeviceAttr grids[] = {cudaDevAttrMaxGridDimX, cudaDevAttrMaxGridDimY, cudaDevAttrMaxGridDimZ};
  for (int axis = 0; axis < 3; axis++) {
    its->maxThreadsDim[axis] = attribute(blocks[axis]);
    its->maxGridSize[axis] = attribute(grids[axis]);
  }
  its->regsPerBlock = attribute(cudaDevAttrMaxRegistersPerBlock);
  its->regsPerMultiprocessor = attribute(cudaDevAttrMaxRegistersPerMultiprocessor);
  its->sharedMemPerBlock = attribute(cudaDevAttrMaxSharedMemoryPerBlock);
  its->sharedMemPerBlockOptin = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  its->sharedMemPerMultiprocessor = attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  its->reservedSharedMemPerBlock = attribute(cudaDevAttrReservedSharedMemoryPerBlock);
  its->l2CacheSize = attribute(cudaDevAttrL2CacheSize);
  its->memoryBusWidth = attribute(cudaDevAttrGlobalMemoryBusWidth);
  its->textureAlignment = attribute(cudaDevAttrTextureAlignment);
  its->asyncEngineCount = attribute(cudaDevAttrAsyncEngineCount);
  its->unifiedAddressing = its->canMapHostMemory = its->concurrentKernels = its->cooperativeLaunch = 1;
  return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceGetPCIBusId(char *text, int length, int device) {
  snprintf(text, length, "0000:%02x:00.0", device + 1);
  return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceCanAccessPeer(int *can, int, int) {
  *can = 0;
  return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

// The driver's functions lie in the libcuda beside this.
EXPORT cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned, unsigned long long,
                                                    cudaDriverEntryPointQueryResult *result) {
  *function = dlsym(RTLD_DEFAULT, name);
  tell(std::string("entry point ") + name + (*function ? "" : ": none"));
  if (result) {
    *result = *function ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  }
  return cudaSuccess;
}
