// Faults of a disk, for files below a folder. A library for LD_PRELOAD.
//
// DISK_FAULTS names the folder and a file, separated by a colon. The first byte of the file selects
// the fault, and can change at any time:
//   n  no fault
//   r  the file system is read-only: everything that changes it fails with EROFS
//   s  each sync takes 100 ms longer
//   f  each sync fails with EIO
//   t  the disk becomes full while a table of the store is written: each write to a file in a folder
//      `tables` fails with ENOSPC behind its first MiB
//   w  each write to a snapshot takes 300 ms longer
//   o  the next sync fails with EIO, and then the byte becomes n
// A failed sync does nothing, and the data stays in the cache of the kernel, as on Linux.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static char folder[PATH_MAX];
static volatile char *fault;

static int (*real_open)(const char *, int, ...);

__attribute__((constructor)) static void start(void) {
    real_open = dlsym(RTLD_NEXT, "open64");
    const char *setting = getenv("DISK_FAULTS");
    const char *colon = setting ? strchr(setting, ':') : NULL;
    if (!colon) return;
    snprintf(folder, sizeof folder, "%.*s", (int)(colon - setting), setting);
    int file = real_open(colon + 1, O_RDWR);
    void *page = file < 0 ? MAP_FAILED : mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (page == MAP_FAILED) {
        perror("disk_faults");
        _exit(99);
    }
    fault = page;
}

static int path_is_below(const char *path) {
    return fault && strncmp(path, folder, strlen(folder)) == 0;
}

// Whether a file is below the folder and has this text in its path.
static int file_has(int file, const char *text) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return path_is_below(path) && strstr(path, text);
}

static int file_is_below(int file) { return fault && *fault != 'n' && file_has(file, ""); }

static int refuse_change(int is_below) {
    if (!fault || *fault != 'r' || !is_below) return 0;
    errno = EROFS;
    return 1;
}

static void wait_ms(long ms) {
    struct timespec pause = {0, ms * 1000000};
    nanosleep(&pause, NULL);
}

static int refuse_write(int file) {
    if (fault && *fault == 'w' && file_has(file, "/snapshot.new")) wait_ms(300);
    if (!fault || *fault != 't') return refuse_change(file_is_below(file));
    if (lseek(file, 0, SEEK_CUR) < 1 << 20 || !file_has(file, "/tables/")) return 0;
    errno = ENOSPC;
    return 1;
}

static int refuse_sync(int file) {
    if (!file_is_below(file)) return 0;
    char now = *fault;
    if (now == 's') wait_ms(100);
    if (now == 'o' && !__sync_bool_compare_and_swap((char *)fault, 'o', 'n')) return 0;
    if (now != 'f' && now != 'o') return 0;
    errno = EIO;
    return 1;
}

#define ON_FILE(type, name, refuse, parameters, arguments) \
    type name parameters {                                 \
        static type(*real) parameters;                     \
        if (!real) real = dlsym(RTLD_NEXT, #name);         \
        if (refuse) return -1;                             \
        return real arguments;                             \
    }

ON_FILE(int, fsync, refuse_sync(file), (int file), (file))
ON_FILE(int, fdatasync, refuse_sync(file), (int file), (file))
ON_FILE(ssize_t, write, refuse_write(file), (int file, const void *from, size_t count),
        (file, from, count))
ON_FILE(ssize_t, writev, refuse_write(file),
        (int file, const struct iovec *from, int count), (file, from, count))
ON_FILE(ssize_t, pwrite64, refuse_write(file),
        (int file, const void *from, size_t count, off64_t at), (file, from, count, at))
ON_FILE(int, ftruncate64, refuse_change(file_is_below(file)), (int file, off64_t length),
        (file, length))
ON_FILE(int, rename, refuse_change(path_is_below(to)), (const char *from, const char *to), (from, to))
ON_FILE(int, unlink, refuse_change(path_is_below(path)), (const char *path), (path))
ON_FILE(int, mkdir, refuse_change(path_is_below(path)), (const char *path, mode_t mode), (path, mode))

int open64(const char *path, int flags, ...) {
    mode_t mode = 0;
    if (flags & (O_CREAT | O_TMPFILE)) {
        va_list more;
        va_start(more, flags);
        mode = va_arg(more, mode_t);
        va_end(more);
    }
    int changes = (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC);
    if (changes && refuse_change(path_is_below(path))) return -1;
    return real_open(path, flags, mode);
}
