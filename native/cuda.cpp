// The CUDA helper: what libtorch offers to C++ alone, as C functions. src/engine/torch/device/cuda/helper.rs opens it at run time and is the only
// caller; scripts/setup-cuda-helper builds it. A function that can fail answers 0, or 1 and leaves the reason to latentd_cuda_error.
// Nothing is thrown across the border: every body that calls libtorch stands in `guarded`.
//
// Tensors are `at::Tensor *`, as in torch-sys; streams are the numbers that c10 gives them; pools are pairs of numbers.

#include <cstdint>
#include <cstring>
#include <memory>

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/core/CachingHostAllocator.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/version.h>

#include "guard.h"

namespace {

c10::cuda::CUDAStream stream_of(int device, int64_t stream) {
  return c10::cuda::CUDAStream::unpack3(stream, static_cast<c10::DeviceIndex>(device), c10::DeviceType::CUDA);
}

struct Event {
  // Who waits for it sleeps: a processor core is better spent on another engine or on PNG. It notes the time.
  c10::cuda::CUDAEvent event{cudaEventBlockingSync};
};

struct Graph {
  int device;
  c10::MempoolId_t pool;
  at::cuda::CUDAGraph graph;
  bool capturing = false;

  Graph(int device, const uint64_t *numbers) : device(device), pool(numbers[0], numbers[1]) {}

  // libtorch forgets to undo this when a capture breaks; later tensors would come from the graphs' pool.
  void leave_pool() {
    c10::cuda::CUDACachingAllocator::endAllocateToPool(static_cast<c10::DeviceIndex>(device), pool);
    at::getHostAllocator(at::kCUDA)->end_allocate_to_pool(pool);
    c10::cuda::CUDACachingAllocator::releasePool(static_cast<c10::DeviceIndex>(device), pool);
    at::getHostAllocator(at::kCUDA)->release_pool(pool);
  }

  // Whatever becomes of it, the stream does things again instead of writing them down.
  int end() noexcept {
    capturing = false;
    const int status = guarded([&] { graph.capture_end(); });
    if (status != 0) {
      const std::string kept = fault; // what broke the capture, not what breaks now
      guarded([&] { leave_pool(); });
      (void)cudaGetLastError(); // else the next call of anybody would be told of it
      fault = kept;
    }
    return status;
  }
};

} // namespace

// What the functions below look like; another number is another interface.
EXPORT int latentd_cuda_interface() { return 4; }

// The libtorch that this was built for: C++ has no stable interface from one to the next.
EXPORT const char *latentd_cuda_torch() { return TORCH_VERSION; }

EXPORT const char *latentd_cuda_error() { return fault.c_str(); }

// Has this thread work on `device`, on a stream of libtorch's pool that first waits for what the thread gave the device before. The stream
// is of high priority: its evaluations are everybody's, and what other streams do fills the gaps.
//
// From here on libtorch's own choice of an attention, in all of the process, is FlashAttention before cuDNN. On compute capability 9.0 and 10.0 it
// would be cuDNN, which fails where it has no plan for a shape, and takes a fraction of a second to make one for each batch size.
EXPORT int latentd_cuda_enter(int device, int64_t *stream) {
  return guarded([&] {
    const auto index = static_cast<c10::DeviceIndex>(device);
    c10::cuda::set_device(index);
    const auto before = c10::cuda::getCurrentCUDAStream(index);
    at::globalContext().setSDPUseCuDNN(false);
    const auto own = c10::cuda::getStreamFromPool(true, index);
    c10::cuda::CUDAEvent reached;
    reached.record(before);
    reached.block(own);
    c10::cuda::setCurrentCUDAStream(own);
    *stream = own.id();
  });
}

// Another stream of libtorch's pool, of ordinary priority. Who works on it now and then says so, and says after what.
EXPORT int latentd_cuda_stream_new(int device, int64_t *stream) {
  return guarded([&] { *stream = c10::cuda::getStreamFromPool(false, static_cast<c10::DeviceIndex>(device)).id(); });
}

// Has this thread work on `stream` from here on.
EXPORT int latentd_cuda_stream_use(int device, int64_t stream) {
  return guarded([&] { c10::cuda::setCurrentCUDAStream(stream_of(device, stream)); });
}

// Attention by cuDNN, whatever libtorch's own choice is: `query` [batch, heads, length, size], `key` and `value` with a length of their own. An
// error where cuDNN has no plan for the shape.
EXPORT int latentd_cuda_attend_cudnn(const at::Tensor *query, const at::Tensor *key, const at::Tensor *value, int causal, void **made) {
  return guarded([&] {
    auto attended = at::_scaled_dot_product_cudnn_attention(*query, *key, *value, /*attn_bias=*/std::nullopt, /*compute_log_sumexp=*/false,
                                                            /*dropout_p=*/0.0, causal != 0);
    *made = new at::Tensor(std::move(std::get<0>(attended)));
  });
}

// f32 is f32: no TF32, which has the mantissa of f16, in matrix products and convolutions of this process.
EXPORT int latentd_cuda_exact() {
  return guarded([] {
    at::globalContext().setAllowTF32CuBLAS(false);
    at::globalContext().setAllowTF32CuDNN(false);
  });
}

// Gives back to the GPUs what tensors that are gone have left: a stream's memory serves no other stream.
EXPORT int latentd_cuda_trim() {
  return guarded([] { c10::cuda::CUDACachingAllocator::emptyCache(); });
}

// Copies bytes to `target`, a tensor on a GPU without gaps, from its byte `offset` on, without waiting for what the current stream does: by
// way of `block` bytes of pinned memory, which serve again when the copy is done. The bytes may go when this returns.
EXPORT int latentd_cuda_upload(void *target, size_t offset, const void *bytes, size_t count, size_t block) {
  return guarded([&] {
    TORCH_CHECK(count <= block, "more bytes than the block has");
    const auto into = static_cast<at::Tensor *>(target)->view({-1}).view(at::kByte);
    const auto size = static_cast<int64_t>(count);
    const auto pinned = at::empty({static_cast<int64_t>(block)}, at::TensorOptions().dtype(at::kByte).pinned_memory(true));
    std::memcpy(pinned.data_ptr(), bytes, count);
    into.narrow(0, static_cast<int64_t>(offset), size).copy_(pinned.narrow(0, 0, size), /*non_blocking=*/true);
  });
}

EXPORT int latentd_cuda_event_new(void **event) {
  return guarded([&] { *event = new Event(); });
}

// Where `stream` is now.
EXPORT int latentd_cuda_event_record(void *event, int device, int64_t stream) {
  return guarded([&] { static_cast<Event *>(event)->event.record(stream_of(device, stream)); });
}

// Until the stream has come by where the event was recorded last; at once if it never was.
EXPORT int latentd_cuda_event_wait(void *event) {
  return guarded([&] { static_cast<Event *>(event)->event.synchronize(); });
}

// What `stream` is given from here on is not begun before the event, where it was recorded last, has passed.
EXPORT int latentd_cuda_event_block(void *event, int device, int64_t stream) {
  return guarded([&] { static_cast<Event *>(event)->event.block(stream_of(device, stream)); });
}

// Whether the stream has come by; it has if the event was never recorded.
EXPORT int latentd_cuda_event_passed(void *event, int *passed) {
  return guarded([&] { *passed = static_cast<Event *>(event)->event.query(); });
}

// From one event to another, both of which have passed.
EXPORT int latentd_cuda_event_elapsed(void *from, void *to, float *milliseconds) {
  return guarded([&] { *milliseconds = static_cast<Event *>(from)->event.elapsed_time(static_cast<Event *>(to)->event); });
}

EXPORT void latentd_cuda_event_drop(void *event) {
  guarded([&] { delete static_cast<Event *>(event); });
}

// A pool of memory that graphs share.
EXPORT int latentd_cuda_pool_new(uint64_t *pool) {
  return guarded([&] {
    const auto made = at::cuda::graph_pool_handle();
    pool[0] = made.first;
    pool[1] = made.second;
  });
}

// From here on, what this thread gives its current stream is written down and not done. Other threads are not concerned.
EXPORT int latentd_cuda_graph_begin(int device, const uint64_t *pool, void **graph) {
  return guarded([&] {
    auto made = std::make_unique<Graph>(device, pool);
    try {
      made->graph.capture_begin(made->pool, cudaStreamCaptureModeThreadLocal);
    } catch (...) {
      guarded([&] { made->leave_pool(); }); // or the allocator would go on asking a graph that is gone
      throw;
    }
    made->capturing = true;
    *graph = made.release();
  });
}

// Until here. A graph of which this fails is good for nothing but to be dropped.
EXPORT int latentd_cuda_graph_end(void *graph) { return static_cast<Graph *>(graph)->end(); }

// Has the current stream do it all.
EXPORT int latentd_cuda_graph_replay(void *graph) {
  return guarded([&] { static_cast<Graph *>(graph)->graph.replay(); });
}

// Also one that is being captured.
EXPORT void latentd_cuda_graph_drop(void *graph) {
  auto *made = static_cast<Graph *>(graph);
  if (made->capturing) {
    made->end();
  }
  guarded([&] { delete made; });
}
