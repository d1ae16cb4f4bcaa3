/* A slow file system, for benchmarks: to be loaded by LD_PRELOAD.
 *
 * Calls of the C library that a network file system answers by asking its server are delayed by
 * SLOW_MILLISECONDS, and written as "process thread call path" lines to the file SLOW_LOG, if their path lies below
 * SLOW_FOLDER. Both paths must be absolute. Reading and writing are not delayed: servers do that ahead and behind.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void note(const char *call, const char *path) {
    const char *folder = getenv("SLOW_FOLDER"), *log = getenv("SLOW_LOG"), *delay = getenv("SLOW_MILLISECONDS");
    char whole[PATH_MAX * 2], line[PATH_MAX * 2 + 100];
    if (!folder || !path) return;
    if (path[0] == '/') {
        snprintf(whole, sizeof whole, "%s", path);
    } else {
        char here[PATH_MAX];
        if (!getcwd(here, sizeof here)) return;
        snprintf(whole, sizeof whole, "%s/%s", here, path);
    }
    size_t length = strlen(folder);
    if (strncmp(whole, folder, length) || (whole[length] && whole[length] != '/')) return;
    if (log) {
        int file = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT, 0600);
        int size = snprintf(line, sizeof line, "%d %ld %s %s\n", getpid(), syscall(SYS_gettid), call, whole);
        if (file >= 0) {
            if (write(file, line, size) < 0) abort();
            syscall(SYS_close, file);
        }
    }
    if (delay) {
        double seconds = atof(delay) / 1000;
        struct timespec pause = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
        nanosleep(&pause, NULL);
    }
}

static void note_open(const char *call, int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlink, link, path, sizeof path - 1);
    if (length <= 0) return;
    path[length] = 0;
    note(call, path);
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        va_list words; \
        va_start(words, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(words, mode_t) : 0; \
        va_end(words); \
        note("open", path); \
        return real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        REAL(name); \
        va_list words; \
        va_start(words, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(words, mode_t) : 0; \
        va_end(words); \
        if (folder == AT_FDCWD || path[0] == '/') note("open", path); \
        return real(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

FILE *fopen(const char *path, const char *mode) { REAL(fopen); note("open", path); return real(path, mode); }
FILE *fopen64(const char *path, const char *mode) { REAL(fopen64); note("open", path); return real(path, mode); }
int stat(const char *path, struct stat *s) { REAL(stat); note("stat", path); return real(path, s); }
int stat64(const char *path, struct stat64 *s) { REAL(stat64); note("stat", path); return real(path, s); }
int lstat(const char *path, struct stat *s) { REAL(lstat); note("stat", path); return real(path, s); }
int lstat64(const char *path, struct stat64 *s) { REAL(lstat64); note("stat", path); return real(path, s); }
int fstatat(int folder, const char *path, struct stat *s, int flags) {
    REAL(fstatat);
    if (folder == AT_FDCWD || path[0] == '/') note("stat", path);
    return real(folder, path, s, flags);
}
int fstatat64(int folder, const char *path, struct stat64 *s, int flags) {
    REAL(fstatat64);
    if (folder == AT_FDCWD || path[0] == '/') note("stat", path);
    return real(folder, path, s, flags);
}
int access(const char *path, int mode) { REAL(access); note("stat", path); return real(path, mode); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); note("mkdir", path); return real(path, mode); }
int unlink(const char *path) { REAL(unlink); note("unlink", path); return real(path); }
int rename(const char *from, const char *to) { REAL(rename); note("rename", to); return real(from, to); }
int renameat(int one, const char *from, int two, const char *to) {
    REAL(renameat);
    note("rename", to);
    return real(one, from, two, to);
}
int link(const char *from, const char *to) { REAL(link); note("link", to); return real(from, to); }
int linkat(int one, const char *from, int two, const char *to, int flags) {
    REAL(linkat);
    note("link", to);
    return real(one, from, two, to, flags);
}
int fsync(int fd) { REAL(fsync); note_open("fsync", fd); return real(fd); }
DIR *opendir(const char *path) { REAL(opendir); note("list", path); return real(path); }
DIR *fdopendir(int fd) { REAL(fdopendir); note_open("list", fd); return real(fd); }
