#include "host/core/io.h"
#include "host/core/mem.h"
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_TEMPS 1000 /* left behind by dead processes, before giving up */

static _Atomic uint64_t n_ops, fail_op;
static _Atomic int fail_errno;

void tp_io_fail_at(uint64_t n, int error)
{
    fail_errno = error;
    fail_op = n == 0 ? 0 : n_ops + n;
}

uint64_t tp_io_count(void)
{
    return n_ops;
}

/* Counts an operation; 1 if a test wants it to fail. */
static int planted(void)
{
    if (++n_ops != fail_op)
        return 0;
    errno = fail_errno;
    return 1;
}

#define OP(call) (planted() ? -1 : (call))

static tp_status read_fd(int fd, const char *path, unsigned char **bytes, size_t *n)
{
    struct stat s;

    TP_CHECK(OP(fstat(fd, &s)) == 0, TP_EIO, "%s: %s", path, strerror(errno));
    TP_CHECK(S_ISREG(s.st_mode), TP_EIO, "%s: is not a regular file", path);
    TP_TRY(tp_alloc(bytes, (size_t)s.st_size + 1, 1, path));
    for (*n = 0; *n < (size_t)s.st_size;) {
        const ssize_t got = OP(read(fd, *bytes + *n, (size_t)s.st_size - *n));
        TP_CHECK(got > 0 || (got < 0 && errno == EINTR), TP_EIO, "%s: %s", path,
                 got == 0 ? "it shrank while it was read" : strerror(errno));
        *n += got > 0 ? (size_t)got : 0;
    }
    return TP_OK;
}

tp_status tp_io_read(const char *path, unsigned char **bytes, size_t *n)
{
    *bytes = NULL;
    *n = 0;
    const int fd = OP(open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)); /* does not wait for a pipe's writer */
    TP_CHECK(fd >= 0 || errno != ENOENT, TP_ENOENT, "%s: no such file", path);
    TP_CHECK(fd >= 0, TP_EIO, "%s: %s", path, strerror(errno));
    const tp_status st = read_fd(fd, path, bytes, n);
    close(fd);
    if (st != TP_OK) {
        tp_free(*bytes);
        *bytes = NULL;
    }
    return st;
}

static tp_status write_all(int fd, const char *path, const void *bytes, size_t n)
{
    for (size_t done = 0; done < n;) {
        const ssize_t put = OP(write(fd, (const char *)bytes + done, n - done));
        TP_CHECK(put >= 0 || errno == EINTR, TP_EIO, "%s: writing %zu bytes: %s", path, n, strerror(errno));
        done += put > 0 ? (size_t)put : 0;
    }
    TP_CHECK(OP(fsync(fd)) == 0, TP_EIO, "%s: fsync: %s", path, strerror(errno));
    return TP_OK;
}

/* Creates a temporary file beside path and leaves its name in temp. A name may be taken: a process with the
 * same number, which in a container is common, died before it could remove its file. */
static tp_status create_temp(const char *path, char *temp, size_t size, int *fd)
{
    static _Atomic unsigned serial;

    for (int tries = 0; tries < MAX_TEMPS; tries++) {
        TP_CHECK(snprintf(temp, size, "%s.tmp-%d-%u", path, (int)getpid(), serial++) < (int)size, TP_ECREATE,
                 "%.100s...: the path is too long", path);
        *fd = OP(open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
        if (*fd >= 0)
            return TP_OK;
        if (errno != EEXIST)
            break;
    }
    TP_FAIL(TP_ECREATE, "%s: cannot be created: %s", temp, strerror(errno));
}

static tp_status write_new(int fd, const char *path, const void *bytes, size_t n)
{
    const tp_status st = write_all(fd, path, bytes, n);
    const int closed = OP(close(fd));
    TP_CHECK(st != TP_OK || closed == 0, TP_EIO, "%s: close: %s", path, strerror(errno));
    return st;
}

static tp_status verify(const char *path, const void *bytes, size_t n)
{
    unsigned char *back = NULL;
    size_t got = 0;

    const tp_status st = tp_io_read(path, &back, &got);
    TP_CHECK(st != TP_ENOENT, TP_EIO, "%s: was gone before it could be read back", path);
    TP_TRY(st);
    const int same = got == n && (n == 0 || memcmp(back, bytes, n) == 0);
    tp_free(back);
    TP_CHECK(same, TP_EIO, "%s: reads back differently from what was written", path);
    return TP_OK;
}

static tp_status sync_folder(const char *path)
{
    char folder[4096];
    const char *slash = strrchr(path, '/');

    snprintf(folder, sizeof(folder), "%.*s", slash != NULL ? (int)(slash - path + (slash == path)) : 1,
             slash != NULL ? path : ".");
    const int fd = OP(open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    TP_CHECK(fd >= 0, TP_EIO, "%s: %s", folder, strerror(errno));
    const int bad = OP(fsync(fd)) != 0, why = errno;
    close(fd);
    TP_CHECK(!bad, TP_EIO, "%s: fsync: %s", folder, strerror(why));
    return TP_OK;
}

tp_status tp_io_replace(const char *path, const void *bytes, size_t n)
{
    char temp[4096];
    int fd = -1;

    TP_TRY(create_temp(path, temp, sizeof(temp), &fd));
    tp_status st = write_new(fd, temp, bytes, n);
    if (st == TP_OK)
        st = verify(temp, bytes, n);
    if (st == TP_OK && OP(rename(temp, path)) != 0)
        st = tp_error_set(TP_EIO, __FILE__, __LINE__, "%s: rename: %s", path, strerror(errno));
    if (st != TP_OK) {
        unlink(temp);
        return st;
    }
    return sync_folder(path);
}

tp_status tp_io_mkdir(const char *path)
{
    char at[4096];
    struct stat s;

    TP_CHECK(path[0] != '\0', TP_ECREATE, "a folder has no name");
    TP_CHECK(snprintf(at, sizeof(at), "%s", path) < (int)sizeof(at), TP_ECREATE,
             "%.100s...: the path is too long", path);
    for (char *p = at + 1;; p++) {
        const char c = *p;
        if (c != '/' && c != '\0')
            continue;
        *p = '\0';
        TP_CHECK(OP(mkdir(at, 0755)) == 0 || errno == EEXIST, TP_ECREATE, "%s: %s", at, strerror(errno));
        if (c == '\0')
            break;
        *p = '/';
    }
    TP_CHECK(stat(path, &s) == 0 && S_ISDIR(s.st_mode), TP_ECREATE, "%s: is not a folder", path);
    return TP_OK;
}

tp_status tp_io_lock(const char *folder, int *fd)
{
    char path[4096];
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    *fd = -1;
    TP_CHECK(snprintf(path, sizeof(path), "%s/lock", folder) < (int)sizeof(path), TP_ECREATE,
             "%.100s...: the path is too long", folder);
    const int f =
        OP(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644)); /* never truncated: somebody may hold it */
    TP_CHECK(f >= 0, TP_ECREATE, "%s: %s", path, strerror(errno));
    if (OP(fcntl(f, F_OFD_SETLK, &lock)) != 0) {
        char holder[32] = "";
        const ssize_t got = read(f, holder, sizeof(holder) - 1);
        close(f);
        TP_FAIL(TP_EBUSY, "%s: another process (%.*s) is using it", folder,
                got > 0 ? (int)strcspn(holder, "\n") : 7, got > 0 ? holder : "unknown");
    }
    char mine[32];
    const int len = snprintf(mine, sizeof(mine), "pid %d\n", (int)getpid());
    if (ftruncate(f, 0) != 0 || pwrite(f, mine, (size_t)len, 0) != len) {
        close(f);
        TP_FAIL(TP_ECREATE, "%s: %s", path, strerror(errno));
    }
    *fd = f;
    return TP_OK;
}
