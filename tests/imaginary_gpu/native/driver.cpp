// The driver's library, as far as latentd and libtorch ask it: its functions answer 0, or 100 where there is no device.

#include "library.h"

EXPORT int cuInit(unsigned) { return imaginary_devices() > 0 ? 0 : 100; }

EXPORT int cuDeviceGetCount(int *count) {
  *count = imaginary_devices();
  return 0;
}

EXPORT int cuDriverGetVersion(int *version) {
  *version = 13000;
  return 0;
}

EXPORT int cuDeviceGet(int *device, int number) {
  *device = number;
  return 0;
}

EXPORT int cuDevicePrimaryCtxGetState(int, unsigned *flags, int *active) {
  *flags = 0;
  *active = 1;
  return 0;
}

EXPORT int cuCtxGetCurrent(void **context) {
  *context = reinterpret_cast<void *>(1);
  return 0;
}

EXPORT int cuGetErrorString(int, const char **text) {
  *text = "an error of the imaginary driver";
  return 0;
}
