/* A disk that fails when it is told to: preloaded into a process, it counts the calls that change files below $FAULTS_IN, and makes some of
 * them fail. What it counts and which fail is in the file $FAULTS, five numbers of 64 bits that this process and the test share.
 *
 * An error of EIO fails a call as a whole. ENOSPC writes half of what the first such call was to write, as a disk does that becomes full,
 * and lets be removed what is there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static struct {
    _Atomic int64_t calls; /* so far */
    _Atomic int64_t from;  /* calls that fail: the first, and the first that does not */
    _Atomic int64_t until;
    _Atomic int64_t error;
    _Atomic int64_t failed; /* so far */
} *shared;
static const char *folder;

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("FAULTS");
    folder = getenv("FAULTS_IN");
    int fd = file && folder ? open(file, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *mapped = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED) shared = mapped;
}

static int below(const char *path) {
    return shared && !strncmp(path, folder, strlen(folder));
}

static int at(int fd) {
    char link[64], path[4096];
    if (!shared) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

/* Whether a call fails: 0, or 1 for the first that does, and 2 for those after it. */
static int fails(int concerned) {
    if (!concerned) return 0;
    int64_t number = shared->calls++;
    if (number < shared->from || number >= shared->until) return 0;
    shared->failed++;
    errno = (int)shared->error;
    return number == shared->from ? 1 : 2;
}

#define REAL(name) (__extension__(__typeof__(name) *)dlsym(RTLD_NEXT, #name))

/* What is written of so many bytes: all (-2), nothing but an error (-1), or some. */
static ssize_t some(int fd, size_t bytes) {
    int how = fails(at(fd));
    if (!how) return -2;
    return errno == ENOSPC && how == 1 && bytes > 1 ? (ssize_t)(bytes / 2) : -1;
}

ssize_t write(int fd, const void *from, size_t bytes) {
    ssize_t part = some(fd, bytes);
    return part == -1 ? -1 : REAL(write)(fd, from, part < 0 ? bytes : (size_t)part);
}

ssize_t pwrite(int fd, const void *from, size_t bytes, off_t place) {
    ssize_t part = some(fd, bytes);
    return part == -1 ? -1 : REAL(pwrite)(fd, from, part < 0 ? bytes : (size_t)part, place);
}

ssize_t pwrite64(int fd, const void *from, size_t bytes, off64_t place) {
    ssize_t part = some(fd, bytes);
    return part == -1 ? -1 : REAL(pwrite64)(fd, from, part < 0 ? bytes : (size_t)part, place);
}

int fsync(int fd) { return fails(at(fd)) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fails(at(fd)) ? -1 : REAL(fdatasync)(fd); }
int ftruncate(int fd, off_t size) { return fails(at(fd)) ? -1 : REAL(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { return fails(at(fd)) ? -1 : REAL(ftruncate64)(fd, size); }
int fallocate(int fd, int mode, off_t from, off_t size) { return fails(at(fd)) ? -1 : REAL(fallocate)(fd, mode, from, size); }
int fallocate64(int fd, int mode, off64_t from, off64_t size) { return fails(at(fd)) ? -1 : REAL(fallocate64)(fd, mode, from, size); }
/* These two return their error. */
int posix_fallocate(int fd, off_t from, off_t size) { return fails(at(fd)) ? errno : REAL(posix_fallocate)(fd, from, size); }
int posix_fallocate64(int fd, off64_t from, off64_t size) { return fails(at(fd)) ? errno : REAL(posix_fallocate64)(fd, from, size); }
int rename(const char *from, const char *to) { return fails(below(to)) ? -1 : REAL(rename)(from, to); }
int mkdir(const char *path, mode_t mode) { return fails(below(path)) ? -1 : REAL(mkdir)(path, mode); }

int unlink(const char *path) {
    if (shared && shared->error == ENOSPC) return REAL(unlink)(path);
    return fails(below(path)) ? -1 : REAL(unlink)(path);
}

/* Only what makes a file is a change. */
static int makes(const char *path, int flags) {
    return flags & O_CREAT && below(path) && access(path, F_OK);
}

#define OPEN(name)                                    \
    int name(const char *path, int flags, ...) {      \
        va_list rest;                                 \
        va_start(rest, flags);                        \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                 \
        return fails(makes(path, flags)) ? -1 : REAL(name)(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
