/* A wall clock that is off by as many seconds as the file CLOCK_OFFSET says: what a time server or a hand does to it. The monotonic clock goes
   on as it is. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, time);
    const char *name = getenv("CLOCK_OFFSET");
    FILE *file = !failed && clock == CLOCK_REALTIME && name ? fopen(name, "r") : NULL;
    if (file) {
        long seconds = 0;
        if (fscanf(file, "%ld", &seconds) == 1) time->tv_sec += seconds;
        fclose(file);
    }
    return failed;
}
