// What the libraries beside the runtime need of it. Their headers are not part of what is fetched for tests: types are as wide as theirs.

#pragma once

#include <cstddef>
#include <cstdint>

#define EXPORT extern "C" __attribute__((visibility("default")))

// In libcudart, which all of them are linked to.
extern "C" {
void imaginary_library(void *stream, const char *call);
int imaginary_devices();
}

// What a handle of cuBLAS or cuDNN is: where its work goes.
struct Handle {
  void *stream = nullptr;
};
