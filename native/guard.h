// The border to Rust: C functions that throw nothing.

#pragma once

#include <exception>
#include <string>

#include <c10/util/Exception.h>

#define EXPORT extern "C" __attribute__((visibility("default")))

// Of this thread's last call that failed.
inline thread_local std::string fault;

template <typename Body> int guarded(Body body) noexcept {
  try {
    body();
    return 0;
  } catch (const std::exception &cause) {
    // c10's own text ends with a stack of frames; the first lines say what happened.
    const auto *error = dynamic_cast<const c10::Error *>(&cause);
    fault = error ? error->what_without_backtrace() : cause.what();
  } catch (...) {
    fault = "an exception that is no std::exception";
  }
  return 1;
}
