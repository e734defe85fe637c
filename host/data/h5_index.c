/* h5_index.c - the only code that runs the HDF5 library, and it runs in a forked child.
 *
 * The child has no network, no other descriptors and no way to write a file or start a program (seccomp),
 * limits on memory and time, and plugins switched off. A hostile file can kill it and nothing else. It is
 * forked, not executed, so nothing has to be found on the disk; the parent never runs HDF5 itself, so no lock
 * of it can be held at the fork. */
#include "host/data/h5_index.h"
#include "host/core/mem.h"
#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <poll.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_SECONDS     120
#define MAX_MEMORY      ((rlim_t)4 << 30)
#define MAX_INDEX_BYTES ((size_t)2 << 30)
#define MAX_OBJECTS     65536
#define MAX_DEPTH       32
#define MAX_CHUNKS      ((uint64_t)1 << 26)
#define MAX_COMPACT     65536
#define MAX_TEXT        65536
#define MAX_NAME        1024

/* ---- the child ---- */

typedef struct child {
    FILE *out;
    hid_t file;
    int n_objects;
} child;

static void put(child *c, uint64_t v)
{
    fwrite(&v, sizeof(v), 1, c->out);
}

static void put_text(child *c, const char *text, size_t n)
{
    put(c, n);
    fwrite(text, 1, n, c->out);
}

/* Says why the file is refused, and ends the child. */
static void refuse(child *c, const char *name, const char *why)
{
    char text[MAX_NAME + 256];
    put(c, TP_H5_REFUSED);
    const int n = snprintf(text, sizeof(text), "%s%s%s", name, name[0] != '\0' ? ": " : "", why);
    put_text(c, text, (size_t)n);
    fflush(c->out);
    _exit(0);
}

static tp_dtype integer_dtype(hid_t type)
{
    static const tp_dtype of[2][4] = {{TP_U8, TP_U16, TP_U32, TP_U64}, {TP_I8, TP_I16, TP_I32, TP_I64}};
    const size_t size = H5Tget_size(type);
    const int is_signed = H5Tget_sign(type) == H5T_SGN_2;
    const int log2 = size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : size == 8 ? 3 : -1;

    return log2 >= 0 && H5Tget_precision(type) == 8 * size ? of[is_signed][log2] : TP_DTYPE_NONE;
}

static tp_dtype float_dtype(hid_t type)
{
    size_t sign, exponent, exponent_bits, mantissa, mantissa_bits;
    const size_t size = H5Tget_size(type);

    if (H5Tget_fields(type, &sign, &exponent, &exponent_bits, &mantissa, &mantissa_bits) < 0)
        return TP_DTYPE_NONE;
    if (size == 4 && exponent_bits == 8 && mantissa_bits == 23)
        return TP_F32;
    if (size == 8 && exponent_bits == 11 && mantissa_bits == 52)
        return TP_F64;
    if (size == 2 && exponent_bits == 5 && mantissa_bits == 10)
        return TP_F16;
    return size == 2 && exponent_bits == 8 && mantissa_bits == 7 ? TP_BF16 : TP_DTYPE_NONE;
}

/* Enumerations (h5py's bool) are read as the integers they are stored as. */
static tp_dtype dtype_of(hid_t type)
{
    tp_dtype dtype = TP_DTYPE_NONE;
    switch (H5Tget_class(type)) {
    case H5T_INTEGER:
        return integer_dtype(type);
    case H5T_FLOAT:
        return float_dtype(type);
    case H5T_ENUM: {
        const hid_t base = H5Tget_super(type);
        dtype = integer_dtype(base);
        H5Tclose(base);
        return dtype;
    }
    default:
        return TP_DTYPE_NONE;
    }
}

static void put_filters(child *c, hid_t plist, const char *name)
{
    const int n = H5Pget_nfilters(plist);

    if (n < 0 || n > TP_H5_MAX_FILTERS)
        refuse(c, name, "more filters than are read");
    put(c, (uint64_t)n);
    for (int i = 0; i < n; i++) {
        unsigned flags = 0, values[8], config = 0;
        size_t n_values = 8;
        const H5Z_filter_t id =
            H5Pget_filter2(plist, (unsigned)i, &flags, &n_values, values, 0, NULL, &config);
        if (id == H5Z_FILTER_DEFLATE)
            put(c, TP_H5_DEFLATE);
        else if (id == H5Z_FILTER_SHUFFLE)
            put(c, TP_H5_SHUFFLE);
        else if (id == H5Z_FILTER_FLETCHER32)
            put(c, TP_H5_FLETCHER32);
        else {
            char why[96];
            snprintf(why, sizeof(why), "filter %d is not one of gzip, shuffle, fletcher32", (int)id);
            refuse(c, name, why);
        }
    }
}

static void put_chunks(child *c, hid_t set, hid_t plist, const char *name, int rank, const hsize_t *dims)
{
    hsize_t chunk[H5S_MAX_RANK], at[H5S_MAX_RANK] = {0};
    uint64_t n = 1;

    if (H5Pget_chunk(plist, rank, chunk) != rank)
        refuse(c, name, "its chunk shape cannot be read");
    for (int i = 0; i < rank; i++) {
        if (chunk[i] == 0 || (dims[i] > 0 && n > MAX_CHUNKS / ((dims[i] + chunk[i] - 1) / chunk[i])))
            refuse(c, name, "more chunks than are read (2^26)");
        put(c, chunk[i]);
        n *= (dims[i] + chunk[i] - 1) / chunk[i];
    }
    put_filters(c, plist, name);
    put(c, n);
    for (uint64_t k = 0; k < n; k++) {
        unsigned mask = 0;
        haddr_t offset = HADDR_UNDEF;
        hsize_t bytes = 0;
        if (H5Dget_chunk_info_by_coord(set, at, &mask, &offset, &bytes) < 0)
            refuse(c, name, "its chunk table cannot be read");
        put(c, offset == HADDR_UNDEF ? TP_H5_NO_OFFSET : offset);
        put(c, bytes);
        put(c, mask);
        for (int i = rank - 1; i >= 0; i--) { /* the next chunk of the grid, row-major */
            at[i] += chunk[i];
            if (at[i] < dims[i])
                break;
            at[i] = 0;
        }
    }
}

static void put_contiguous(child *c, hid_t set, hid_t plist, const char *name)
{
    if (H5Pget_external_count(plist) != 0)
        refuse(c, name, "external storage is not followed");
    const haddr_t offset = H5Dget_offset(set);
    put(c, offset == HADDR_UNDEF ? TP_H5_NO_OFFSET : offset);
    put(c, H5Dget_storage_size(set));
}

static void put_compact(child *c, hid_t set, hid_t type, const char *name)
{
    static char bytes[MAX_COMPACT];
    const hsize_t n = H5Dget_storage_size(set);

    if (n > sizeof(bytes) || H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes) < 0)
        refuse(c, name, "its compact data cannot be read");
    put_text(c, bytes, n);
}

static void put_array(child *c, hid_t set, hid_t type, tp_dtype dtype, const char *name)
{
    hsize_t dims[H5S_MAX_RANK];
    unsigned char fill[8] = {0};
    H5D_fill_value_t defined = H5D_FILL_VALUE_UNDEFINED;
    const hid_t space = H5Dget_space(set), plist = H5Dget_create_plist(set);
    const int rank = H5Sget_simple_extent_ndims(space);
    const H5D_layout_t layout = H5Pget_layout(plist);

    if (rank < 1 || rank > TP_MAX_DIMS || H5Sget_simple_extent_type(space) != H5S_SIMPLE)
        return; /* scalars and deep arrays are no training data */
    H5Sget_simple_extent_dims(space, dims, NULL);
    if (layout != H5D_CONTIGUOUS && layout != H5D_COMPACT && layout != H5D_CHUNKED)
        refuse(c, name, "a virtual dataset is not followed");
    if (H5Pfill_value_defined(plist, &defined) >= 0 && defined == H5D_FILL_VALUE_USER_DEFINED)
        H5Pget_fill_value(plist, type, fill);
    put(c, TP_H5_ARRAY);
    put_text(c, name, strlen(name));
    put(c, (uint64_t)dtype);
    put(c, H5Tget_order(type) == H5T_ORDER_BE);
    put(c, (uint64_t)rank);
    for (int i = 0; i < rank; i++)
        put(c, dims[i]);
    put(c, layout == H5D_CONTIGUOUS ? TP_H5_CONTIGUOUS
           : layout == H5D_COMPACT  ? TP_H5_COMPACT
                                    : TP_H5_CHUNKED);
    fwrite(fill, 1, sizeof(fill), c->out);
    if (layout == H5D_CONTIGUOUS)
        put_contiguous(c, set, plist, name);
    else if (layout == H5D_COMPACT)
        put_compact(c, set, type, name);
    else
        put_chunks(c, set, plist, name, rank, dims);
    H5Pclose(plist);
    H5Sclose(space);
}

/* A string attribute, or a list of them joined by newlines; any other attribute is passed over. */
static void put_attribute(child *c, hid_t attribute, const char *owner, const char *name)
{
    static char text[MAX_TEXT];
    const hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    const hssize_t n = H5Sget_simple_extent_npoints(space);
    size_t at = 0;

    if (H5Tget_class(type) != H5T_STRING || n < 1 || n > 4096)
        return;
    const hid_t memory = H5Tcopy(H5T_C_S1);
    const int variable = H5Tis_variable_str(type) > 0;
    const size_t width = variable ? sizeof(char *) : H5Tget_size(type);
    if (!variable && (width == 0 || width * (size_t)n > sizeof(text)))
        return;
    H5Tset_size(memory, variable ? H5T_VARIABLE : width);
    H5Tset_cset(memory, H5Tget_cset(type));
    char *buffer = calloc((size_t)n, width + 1);
    if (buffer != NULL && H5Aread(attribute, memory, buffer) >= 0) {
        for (hssize_t i = 0; i < n; i++) {
            const char *item = variable ? ((char **)(void *)buffer)[i] : buffer + (size_t)i * width;
            const size_t len = item == NULL ? 0 : strnlen(item, variable ? MAX_TEXT : width);
            if (at + len + 1 > sizeof(text))
                return;
            if (i > 0)
                text[at++] = '\n';
            if (len > 0)
                memcpy(text + at, item, len);
            at += len;
        }
        put(c, TP_H5_ATTRIBUTE);
        put_text(c, owner, strlen(owner));
        put_text(c, name, strlen(name));
        put_text(c, text, at);
    }
    free(buffer);
}

static void put_attributes(child *c, hid_t object, const char *owner)
{
    H5O_info_t info;

    if (H5Oget_info2(object, &info, H5O_INFO_NUM_ATTRS) < 0)
        return;
    for (hsize_t i = 0; i < info.num_attrs && i < 256; i++) {
        char name[MAX_NAME];
        const hid_t a = H5Aopen_by_idx(object, ".", H5_INDEX_NAME, H5_ITER_INC, i, H5P_DEFAULT, H5P_DEFAULT);
        if (a < 0)
            continue;
        if (H5Aget_name(a, sizeof(name), name) > 0)
            put_attribute(c, a, owner, name);
        H5Aclose(a);
    }
}

static void visit_set(child *c, hid_t set, const char *name)
{
    const hid_t type = H5Dget_type(set);
    const tp_dtype dtype = dtype_of(type);

    if (dtype != TP_DTYPE_NONE) {
        put_array(c, set, type, dtype, name);
        put_attributes(c, set, name);
    }
    H5Tclose(type);
}

static void visit_group(child *c, hid_t group, const char *path, int depth)
{
    H5G_info_t info;

    if (depth > MAX_DEPTH || H5Gget_info(group, &info) < 0)
        refuse(c, path, "groups are nested too deep (32)");
    for (hsize_t i = 0; i < info.nlinks; i++) {
        char link[MAX_NAME], name[MAX_NAME];
        H5L_info_t l;
        if (++c->n_objects > MAX_OBJECTS)
            refuse(c, path, "more objects than are read (65536)");
        if (H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, link, sizeof(link), H5P_DEFAULT) <
                0 ||
            H5Lget_info(group, link, &l, H5P_DEFAULT) < 0)
            refuse(c, path, "a link cannot be read");
        if (snprintf(name, sizeof(name), "%s%s%s", path, path[0] != '\0' ? "/" : "", link) >= MAX_NAME)
            refuse(c, path, "a name is too long (1023)");
        if (l.type == H5L_TYPE_EXTERNAL)
            refuse(c, name, "an external link is not followed");
        if (l.type != H5L_TYPE_HARD)
            continue;
        const hid_t object = H5Oopen(group, link, H5P_DEFAULT);
        if (object < 0)
            refuse(c, name, "cannot be opened");
        if (H5Iget_type(object) == H5I_DATASET)
            visit_set(c, object, name);
        else if (H5Iget_type(object) == H5I_GROUP)
            visit_group(c, object, name, depth + 1);
        H5Oclose(object);
    }
}

static void limit(int resource, rlim_t value)
{
    const struct rlimit r = {value, value};
    setrlimit(resource, &r);
}

/* No network, no new program, no file opened for writing or removed. */
static int lock_down(void)
{
    static const int denied[] = {
        SCMP_SYS(socket),   SCMP_SYS(connect),   SCMP_SYS(execve),   SCMP_SYS(execveat),  SCMP_SYS(unlink),
        SCMP_SYS(unlinkat), SCMP_SYS(rename),    SCMP_SYS(renameat), SCMP_SYS(renameat2), SCMP_SYS(mkdir),
        SCMP_SYS(truncate), SCMP_SYS(ftruncate), SCMP_SYS(creat),    SCMP_SYS(ptrace),    SCMP_SYS(fork)};
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
    int bad = ctx == NULL;

    for (size_t i = 0; !bad && i < sizeof(denied) / sizeof(denied[0]); i++)
        bad |= seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), denied[i], 0) < 0;
    for (unsigned flag = O_WRONLY; !bad && flag <= O_RDWR; flag++) {
        bad |= seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(openat), 1,
                                SCMP_A2(SCMP_CMP_MASKED_EQ, O_ACCMODE, flag)) < 0;
        bad |= seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(open), 1,
                                SCMP_A1(SCMP_CMP_MASKED_EQ, O_ACCMODE, flag)) < 0;
    }
    bad = bad || seccomp_load(ctx) < 0;
    seccomp_release(ctx);
    return bad ? -1 : 0;
}

static void run_child(int fd, int out)
{
    char path[64];
    child c = {0};
    hsize_t user_block = 0;

    if (dup2(fd, 3) < 0 || dup2(out, 4) < 0)
        _exit(1);
    close_range(5, ~0u, 0);
    for (int i = 0; i < 3; i++)
        close(i);
    c.out = fdopen(4, "w");
    if (c.out == NULL)
        _exit(1);
    limit(RLIMIT_CPU, MAX_SECONDS);
    limit(RLIMIT_CORE, 0);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    limit(RLIMIT_AS, MAX_MEMORY);
#endif
    if (lock_down() < 0)
        refuse(&c, "", "the index child cannot be locked down (seccomp)");
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    H5PLset_loading_state(0);
    snprintf(path, sizeof(path), "/proc/self/fd/3");
    c.file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (c.file < 0)
        refuse(&c, "", "is not an HDF5 file, or a damaged one");
    const hid_t create = H5Fget_create_plist(c.file);
    if (H5Pget_userblock(create, &user_block) < 0 || user_block != 0)
        refuse(&c, "", "a file with a user block is not read");
    const hid_t root = H5Gopen2(c.file, "/", H5P_DEFAULT);
    if (root < 0)
        refuse(&c, "", "its root group cannot be opened");
    put_attributes(&c, root, "");
    visit_group(&c, root, "", 0);
    put(&c, TP_H5_END);
    fflush(c.out);
    _exit(ferror(c.out) ? 1 : 0);
}

/* ---- the parent ---- */

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static tp_status read_all(int fd, const char *path, unsigned char **bytes, size_t *n)
{
    size_t room = 0;
    const int64_t stop = now_ms() + MAX_SECONDS * 1000;

    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        const int64_t left = stop - now_ms();
        TP_CHECK(left > 0, TP_EDATA, "%s: reading its structure took over %d s", path, MAX_SECONDS);
        if (poll(&p, 1, (int)left) <= 0)
            continue;
        if (*n == room) {
            const size_t grown = room > 0 ? 2 * room : 65536;
            TP_CHECK(grown <= MAX_INDEX_BYTES, TP_EDATA, "%s: its structure needs more than %zu bytes", path,
                     MAX_INDEX_BYTES);
            TP_TRY(tp_realloc(bytes, room, grown, 1, "HDF5 index"));
            room = grown;
        }
        const ssize_t got = read(fd, *bytes + *n, room - *n);
        if (got == 0)
            return TP_OK;
        TP_CHECK(got > 0 || errno == EINTR, TP_EIO, "%s: pipe of the index child: %s", path, strerror(errno));
        *n += got > 0 ? (size_t)got : 0;
    }
}

static tp_status reap(pid_t pid, const char *path)
{
    int status = 0;

    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    TP_CHECK(!WIFSIGNALED(status), TP_EDATA,
             "%s: the HDF5 index could not be read (the child ended by signal %d)", path, WTERMSIG(status));
    TP_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, TP_EDATA,
             "%s: the HDF5 index could not be read (exit %d)", path, WEXITSTATUS(status));
    return TP_OK;
}

tp_status tp_h5_index(int fd, const char *path, unsigned char **bytes, size_t *n)
{
    int ends[2];

    *bytes = NULL;
    *n = 0;
    TP_CHECK(pipe2(ends, O_CLOEXEC) == 0, TP_EIO, "%s: pipe for the index child: %s", path, strerror(errno));
    const pid_t pid = fork();
    if (pid == 0)
        run_child(fd, ends[1]);
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        TP_FAIL(TP_EIO, "%s: index child: %s", path, strerror(errno));
    }
    const tp_status st = read_all(ends[0], path, bytes, n);
    close(ends[0]);
    if (st != TP_OK) {
        char line[512];
        snprintf(line, sizeof(line), "%s", tp_last_error());
        kill(pid, SIGKILL);
        (void)reap(pid, path);
        TP_FAIL(st, "%s", line);
    }
    return reap(pid, path);
}
