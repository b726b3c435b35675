// cuDNN's backend interface, by which libtorch runs convolutions: every graph of operations has one engine, which needs no workspace.

#include "library.h"

namespace {

// From cudnn_backend.h and cudnn_graph.h of cuDNN 9.
constexpr int HEURISTIC_RESULTS = 202;
constexpr int TYPE_INT64 = 3;

} // namespace

EXPORT size_t cudnnGetVersion() { return 91900; }

EXPORT size_t cudnnGetCudartVersion() { return 13000; }

EXPORT const char *cudnnGetErrorString(int) { return "an error of the imaginary cuDNN"; }

EXPORT void cudnnGetLastErrorString(char *text, size_t size) {
  if (size > 0) {
    *text = 0;
  }
}

EXPORT int cudnnCreate(Handle **handle) {
  *handle = new Handle;
  return 0;
}

EXPORT int cudnnSetStream(Handle *handle, void *stream) {
  handle->stream = stream;
  return 0;
}

EXPORT int cudnnGetStream(Handle *handle, void **stream) {
  *stream = handle->stream;
  return 0;
}

EXPORT int cudnnBackendCreateDescriptor(int, void **made) {
  *made = new char;
  return 0;
}

EXPORT int cudnnBackendDestroyDescriptor(char *made) {
  delete made;
  return 0;
}

EXPORT int cudnnBackendSetAttribute(void *, int, int, int64_t, const void *) { return 0; }

EXPORT int cudnnBackendFinalize(void *) { return 0; }

// One result of the heuristics, and 0 for whatever number is asked for; lists are empty.
EXPORT int cudnnBackendGetAttribute(void *, int name, int type, int64_t wanted, int64_t *found, void *values) {
  const bool number = type == TYPE_INT64 && wanted > 0 && values;
  if (number) {
    *static_cast<int64_t *>(values) = 0;
  }
  if (found) {
    *found = name == HEURISTIC_RESULTS || number ? 1 : 0;
  }
  return 0;
}

EXPORT int cudnnBackendExecute(Handle *handle, void *, void *) {
  imaginary_library(handle->stream, "cudnnBackendExecute");
  return 0;
}
