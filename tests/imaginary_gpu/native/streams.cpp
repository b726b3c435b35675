// Streams, events and captures. What a stream is given is done as soon as somebody waits for it, or has asked often enough.

#include <algorithm>
#include <cstdint>
#include <set>
#include <utility>

#include "record.h"

using namespace imaginary;

namespace {

struct Event {
  int number;
  bool timed;
  Stream *stream = nullptr;   // where it was recorded last
  unsigned long position = 0; // in what that stream was given
  bool captured = false;
  int asked = 0;
};

struct Graph {
  int number;
  unsigned long nodes;
};

thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

std::set<Capture *> &captures() {
  static auto *all = new std::set<Capture *>;
  return *all;
}

Event &event_of(cudaEvent_t handle) { return *reinterpret_cast<Event *>(handle); }

std::string name(const Event &event) { return "event " + std::to_string(event.number); }

bool has_passed(const Event &event) { return !event.stream || event.position <= event.stream->done; }

void pass(const Event &event) {
  if (event.stream) {
    event.stream->done = std::max(event.stream->done, event.position);
  }
}

// Whether a capture keeps this thread from an unsafe call; that of another thread does only in the global mode.
bool keeps(const Capture &capture) {
  const bool own = capture.thread == std::this_thread::get_id();
  const bool global = capture.mode == cudaStreamCaptureModeGlobal && thread_mode == cudaStreamCaptureModeGlobal;
  return thread_mode != cudaStreamCaptureModeRelaxed && capture.mode != cudaStreamCaptureModeRelaxed && (own || global);
}

// Whether an event may not be asked or waited for by the host.
bool forbidden_for(const Event &event, const char *call) {
  if (event.captured) {
    fault(std::string(call) + " for " + name(event) + ", which was recorded in a capture");
  }
  return event.captured || forbidden(call);
}

cudaError_t make(cudaStream_t *handle, int priority) {
  static int made = 0;
  const Locked locked(lock());
  *handle = reinterpret_cast<cudaStream_t>(new Stream{++made, priority});
  return cudaSuccess;
}

} // namespace

bool imaginary::forbidden(const char *call) {
  const Locked locked(lock());
  bool kept = false;
  for (auto *capture : captures()) {
    if (keeps(*capture)) {
      capture->broken = kept = true;
    }
  }
  if (kept) {
    fault(std::string(call) + " during a capture");
  }
  return kept;
}

EXPORT cudaError_t cudaStreamCreateWithPriority(cudaStream_t *handle, unsigned, int priority) { return make(handle, priority); }

EXPORT cudaError_t cudaStreamCreateWithFlags(cudaStream_t *handle, unsigned) { return make(handle, 0); }

EXPORT cudaError_t cudaStreamCreate(cudaStream_t *handle) { return make(handle, 0); }

// Events may know it still, so that it is not deleted.
EXPORT cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }

EXPORT cudaError_t cudaStreamGetPriority(cudaStream_t handle, int *priority) {
  *priority = stream_of(handle).priority;
  return cudaSuccess;
}

EXPORT cudaError_t cudaStreamQuery(cudaStream_t handle) {
  const Locked locked(lock());
  if (stream_of(handle).capture || forbidden("cudaStreamQuery")) {
    return failed(cudaErrorStreamCaptureUnsupported);
  }
  return stream_of(handle).done == stream_of(handle).given ? cudaSuccess : failed(cudaErrorNotReady);
}

EXPORT cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  const Locked locked(lock());
  Stream &stream = stream_of(handle);
  tell("the host waits for stream " + std::to_string(stream.number));
  if (forbidden("cudaStreamSynchronize")) {
    return failed(cudaErrorStreamCaptureUnsupported);
  }
  stream.done = stream.given;
  return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceSynchronize() {
  tell("the host waits for the device");
  return forbidden("cudaDeviceSynchronize") ? failed(cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}

EXPORT cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t of, unsigned) {
  const Locked locked(lock());
  const Event &event = event_of(of);
  tell("stream " + std::to_string(stream_of(handle).number) + " waits for " + name(event));
  if (event.captured && !stream_of(handle).capture) {
    fault("a stream waits for " + name(event) + ", which was recorded in a capture");
  }
  return cudaSuccess;
}

EXPORT cudaError_t cudaEventCreateWithFlags(cudaEvent_t *handle, unsigned flags) {
  static int made = 0;
  const Locked locked(lock());
  *handle = reinterpret_cast<cudaEvent_t>(new Event{++made, !(flags & cudaEventDisableTiming)});
  return cudaSuccess;
}

EXPORT cudaError_t cudaEventCreate(cudaEvent_t *handle) { return cudaEventCreateWithFlags(handle, cudaEventDefault); }

EXPORT cudaError_t cudaEventDestroy(cudaEvent_t handle) {
  delete &event_of(handle);
  return cudaSuccess;
}

EXPORT cudaError_t cudaEventRecordWithFlags(cudaEvent_t handle, cudaStream_t where, unsigned) {
  const Locked locked(lock());
  Event &event = event_of(handle);
  Stream &stream = stream_of(where);
  event = {event.number, event.timed, &stream, ++stream.given, stream.capture != nullptr};
  tell("stream " + std::to_string(stream.number) + " records " + name(event));
  return cudaSuccess;
}

EXPORT cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t where) { return cudaEventRecordWithFlags(handle, where, 0); }

EXPORT cudaError_t cudaEventQuery(cudaEvent_t handle) {
  const Locked locked(lock());
  Event &event = event_of(handle);
  if (forbidden_for(event, "cudaEventQuery")) {
    return failed(cudaErrorStreamCaptureUnsupported);
  }
  if (event.asked++ >= settings().pending) {
    pass(event);
  }
  tell("the host asks for " + name(event) + (has_passed(event) ? ": passed" : ": not yet"));
  return has_passed(event) ? cudaSuccess : failed(cudaErrorNotReady);
}

EXPORT cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  const Locked locked(lock());
  const Event &event = event_of(handle);
  tell("the host waits for " + name(event));
  if (forbidden_for(event, "cudaEventSynchronize")) {
    return failed(cudaErrorStreamCaptureUnsupported);
  }
  pass(event);
  return cudaSuccess;
}

EXPORT cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to) {
  const Locked locked(lock());
  for (const auto *event : {&event_of(from), &event_of(to)}) {
    if (!event->timed || !event->stream || !has_passed(*event)) {
      fault("the time of " + name(*event) + ", which has none");
      return failed(cudaErrorInvalidResourceHandle);
    }
  }
  *milliseconds = 1;
  return cudaSuccess;
}

EXPORT cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *mode) {
  std::swap(*mode, thread_mode);
  return cudaSuccess;
}

EXPORT cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus *status) {
  *status = stream_of(handle).capture ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

EXPORT cudaError_t cudaStreamGetCaptureInfo(cudaStream_t handle, cudaStreamCaptureStatus *status, unsigned long long *id, cudaGraph_t *graph,
                                            const cudaGraphNode_t **, const cudaGraphEdgeData **, size_t *) {
  const Capture *capture = stream_of(handle).capture;
  if (capture && id) {
    *id = capture->number;
  }
  if (capture && graph) {
    *graph = nullptr;
  }
  return cudaStreamIsCapturing(handle, status);
}

EXPORT cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  static int begun = 0;
  const Locked locked(lock());
  Stream &stream = stream_of(handle);
  if (stream.capture || stream.number == 0) {
    fault("a capture on stream " + std::to_string(stream.number) + ", which cannot begin one");
    return failed(cudaErrorIllegalState);
  }
  stream.capture = new Capture{++begun, mode, std::this_thread::get_id()};
  captures().insert(stream.capture);
  note("-- capture " + std::to_string(begun) + " begins on stream " + std::to_string(stream.number));
  return cudaSuccess;
}

EXPORT cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t *graph) {
  const Locked locked(lock());
  Capture *capture = std::exchange(stream_of(handle).capture, nullptr);
  if (!capture) {
    return failed(cudaErrorIllegalState);
  }
  captures().erase(capture);
  const std::string title = "capture " + std::to_string(capture->number);
  const unsigned long nodes = table(title, capture->counts);
  const bool broken = capture->broken || settings().break_captures;
  if (broken) {
    note("-- " + title + " is broken");
  }
  *graph = broken ? nullptr : reinterpret_cast<cudaGraph_t>(new Graph{capture->number, nodes});
  delete capture;
  return broken ? failed(cudaErrorStreamCaptureInvalidated) : cudaSuccess;
}

EXPORT cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *, size_t *count) {
  *count = reinterpret_cast<Graph *>(graph)->nodes;
  return cudaSuccess;
}

EXPORT cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *made, cudaGraph_t graph, unsigned long long) {
  *made = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<Graph *>(graph)));
  return cudaSuccess;
}

EXPORT cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete reinterpret_cast<Graph *>(graph);
  return cudaSuccess;
}

EXPORT cudaError_t cudaGraphExecDestroy(cudaGraphExec_t handle) {
  auto *graph = reinterpret_cast<Graph *>(handle);
  tell("graph " + std::to_string(graph->number) + " is let go of");
  delete graph;
  return cudaSuccess;
}

EXPORT cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  give(stream, "graph " + std::to_string(reinterpret_cast<Graph *>(graph)->number));
  return cudaSuccess;
}
