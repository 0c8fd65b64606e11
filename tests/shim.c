/* Counts the file operations of a process and, at the n-th from `arm` on, kills it or lets the operation fail. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long left = -1, seen = 0;
static int code = 0; /* 0: kill */

void arm(long n, int failure) { seen = 0; code = failure; left = n; }
long disarm(void) { left = -1; return seen; }

static int struck(void) {
    if (left < 0) return 0;
    seen++;
    if (atomic_fetch_sub(&left, 1) != 1) { if (left < 1) left = 1L << 60; return 0; }
    left = 1L << 60;
    if (!code) kill(getpid(), SIGKILL);
    errno = code;
    return 1;
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define WRITES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT))
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
        REAL(name); \
        return WRITES(flags) && strncmp(path, "/dev", 4) && struck() ? -1 : real(path, flags, mode); \
    }
#define OPENAT(name) \
    int name(int at, const char *path, int flags, ...) { \
        va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
        REAL(name); \
        return WRITES(flags) && struck() ? -1 : real(at, path, flags, mode); \
    }
#define FILE_ONLY(fd) ((fd) > 2)
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)
ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    off_t at = lseek(fd, 0, SEEK_CUR); /* pipes and sockets have no place */
    return FILE_ONLY(fd) && at >= 0 && struck() ? -1 : real(fd, data, size);
}
ssize_t writev(int fd, const struct iovec *data, int count) {
    REAL(writev);
    return FILE_ONLY(fd) && lseek(fd, 0, SEEK_CUR) >= 0 && struck() ? -1 : real(fd, data, count);
}
#define AT_PLACE(name, place) \
    ssize_t name(int fd, const void *data, size_t size, place at) { \
        REAL(name); \
        return struck() ? -1 : real(fd, data, size, at); \
    }
AT_PLACE(pwrite, off_t) AT_PLACE(pwrite64, off64_t)
ssize_t sendfile(int to, int from, off_t *at, size_t size) { REAL(sendfile); return struck() ? -1 : real(to, from, at, size); }
ssize_t sendfile64(int to, int from, off64_t *at, size_t size) {
    REAL(sendfile64); return struck() ? -1 : real(to, from, at, size);
}
int ftruncate(int fd, off_t size) { REAL(ftruncate); return struck() ? -1 : real(fd, size); }
int ftruncate64(int fd, off64_t size) { REAL(ftruncate64); return struck() ? -1 : real(fd, size); }
int fsync(int fd) { REAL(fsync); return struck() ? -1 : real(fd); }
int fdatasync(int fd) { REAL(fdatasync); return struck() ? -1 : real(fd); }
int symlink(const char *to, const char *path) { REAL(symlink); return struck() ? -1 : real(to, path); }
int link(const char *from, const char *to) { REAL(link); return struck() ? -1 : real(from, to); }
int rename(const char *from, const char *to) { REAL(rename); return struck() ? -1 : real(from, to); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    REAL(renameat2); return struck() ? -1 : real(a, from, b, to, flags);
}
int renameat(int a, const char *from, int b, const char *to) { REAL(renameat); return struck() ? -1 : real(a, from, b, to); }
int unlink(const char *path) { REAL(unlink); return struck() ? -1 : real(path); }
int unlinkat(int at, const char *path, int flags) { REAL(unlinkat); return struck() ? -1 : real(at, path, flags); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); return struck() ? -1 : real(path, mode); }
int mkdirat(int at, const char *path, mode_t mode) { REAL(mkdirat); return struck() ? -1 : real(at, path, mode); }
int rmdir(const char *path) { REAL(rmdir); return struck() ? -1 : real(path); }
