// cuBLASLt: one algorithm for every product.

#include <cstring>

#include "library.h"

#define ANSWERS(call)                                                                                                                                \
  EXPORT int call(...) { return 0; }

// Descriptors are made by the caller's handle and only handed back.
#define MAKES(call)                                                                                                                                  \
  EXPORT int call(void **made, ...) {                                                                                                                \
    *made = new char;                                                                                                                                \
    return 0;                                                                                                                                        \
  }

#define DROPS(call)                                                                                                                                  \
  EXPORT int call(char *made) {                                                                                                                      \
    delete made;                                                                                                                                     \
    return 0;                                                                                                                                        \
  }

MAKES(cublasLtMatmulDescCreate)
MAKES(cublasLtMatrixLayoutCreate)
MAKES(cublasLtMatmulPreferenceCreate)
DROPS(cublasLtMatmulDescDestroy)
DROPS(cublasLtMatrixLayoutDestroy)
DROPS(cublasLtMatmulPreferenceDestroy)
ANSWERS(cublasLtMatmulDescSetAttribute)
ANSWERS(cublasLtMatrixLayoutSetAttribute)
ANSWERS(cublasLtMatmulPreferenceSetAttribute)

EXPORT size_t cublasLtGetVersion() { return 130100; }

// cublasLtMatmulHeuristicResult_t.
struct Choice {
  uint64_t algorithm[8];
  size_t workspace;
  int status;
  float waves;
  int reserved[4];
};

EXPORT int cublasLtMatmulAlgoGetHeuristic(void *, void *, void *, void *, void *, void *, void *, int, Choice *choice, int *found) {
  std::memset(choice, 0, sizeof *choice);
  *found = 1;
  return 0;
}

EXPORT int cublasLtMatmul(void *, void *, const void *, const void *, void *, const void *, void *, const void *, const void *, void *, void *, void *,
                          const void *, void *, size_t, void *stream) {
  imaginary_library(stream, "cublasLtMatmul");
  return 0;
}
