// cuBLAS: whatever computes is counted as a call, on its handle's stream.

#include "library.h"

#define COMPUTES(call)                                                                                                                               \
  EXPORT int call(Handle *handle, ...) {                                                                                                             \
    imaginary_library(handle->stream, #call);                                                                                                        \
    return 0;                                                                                                                                        \
  }

#define ANSWERS(call)                                                                                                                                \
  EXPORT int call(...) { return 0; }

COMPUTES(cublasGemmEx)
COMPUTES(cublasGemmStridedBatchedEx)
COMPUTES(cublasSgemmEx)
COMPUTES(cublasSgemm_v2)
COMPUTES(cublasSgemmStridedBatched)
COMPUTES(cublasSgemv_v2)
COMPUTES(cublasHgemm)
COMPUTES(cublasHgemmStridedBatched)
ANSWERS(cublasSetMathMode)
ANSWERS(cublasSetPointerMode_v2)
ANSWERS(cublasSetWorkspace_v2)

EXPORT int cublasCreate_v2(Handle **handle) {
  *handle = new Handle;
  return 0;
}

EXPORT int cublasDestroy_v2(Handle *handle) {
  delete handle;
  return 0;
}

EXPORT int cublasSetStream_v2(Handle *handle, void *stream) {
  handle->stream = stream;
  return 0;
}

EXPORT int cublasGetMathMode(Handle *, int *mode) {
  *mode = 0;
  return 0;
}

EXPORT int cublasGetPointerMode_v2(Handle *, int *mode) {
  *mode = 0;
  return 0;
}
