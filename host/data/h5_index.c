/* h5_index.c - the only code that runs the HDF5 library, and it runs in a forked child.
 *
 * The child has no network, no other descriptors and no way to open a file or start a program (seccomp),
 * limits on memory and time, and plugins switched off. A hostile file can kill it and nothing else. It is
 * forked, not executed, so nothing has to be found on the disk; the parent never runs HDF5 itself, so no lock
 * of it can be held at the fork. */
#include "host/data/h5_index.h"
#include "host/core/mem.h"
#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <limits.h>
#include <poll.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
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
#define EXIT_REFUSED    3 /* the stream ends with a text, why the file is not read, and its length */

/* ---- the child ---- */

/* The child reads the file through this HDF5 driver, from a descriptor it was given. */
typedef struct driver {
    H5FD_t base;
    int fd;
    haddr_t end, allocated;
    int noting, n_noted; /* while noting, reads of raw data only leave their place here */
    haddr_t offset, bytes;
} driver;

typedef struct child {
    FILE *out;
    hid_t file;
    int n_objects;
    driver driver;
} child;

/* ---- the driver ---- */

static driver *opening; /* HDF5 gives an opening driver no other way to its state */

static H5FD_t *driver_open(const char *name, unsigned flags, hid_t fapl, haddr_t most)
{
    (void)name, (void)fapl, (void)most;
    H5FD_t *base = flags == H5F_ACC_RDONLY && opening != NULL ? &opening->base : NULL;
    opening = NULL; /* a second file, of a link or a source, is none */
    return base;
}

static herr_t driver_close(H5FD_t *base)
{
    (void)base;
    return 0;
}

static haddr_t driver_allocated(const H5FD_t *base, H5FD_mem_t type)
{
    (void)type;
    return ((const driver *)(const void *)base)->allocated;
}

static herr_t driver_allocate(H5FD_t *base, H5FD_mem_t type, haddr_t end)
{
    (void)type;
    ((driver *)(void *)base)->allocated = end;
    return 0;
}

static haddr_t driver_end(const H5FD_t *base, H5FD_mem_t type)
{
    (void)type;
    return ((const driver *)(const void *)base)->end;
}

static herr_t driver_read(H5FD_t *base, H5FD_mem_t type, hid_t transfer, haddr_t at, size_t n, void *to)
{
    driver *d = (driver *)(void *)base;

    (void)transfer;
    if (d->noting && type == H5FD_MEM_DRAW) {
        d->n_noted++;
        d->offset = at;
        d->bytes = n;
        return 0;
    }
    for (size_t done = 0; done < n;) {
        const ssize_t got = pread(d->fd, (char *)to + done, n - done, (off_t)(at + done));
        if (got < 0 && errno != EINTR)
            return -1;
        if (got == 0) { /* HDF5 takes what lies beyond the end for zeros */
            memset((char *)to + done, 0, n - done);
            return 0;
        }
        done += got > 0 ? (size_t)got : 0;
    }
    return 0;
}

/* Required of every driver; files are only read. */
static herr_t driver_write(H5FD_t *base, H5FD_mem_t type, hid_t transfer, haddr_t at, size_t n,
                           const void *of)
{
    (void)base, (void)type, (void)transfer, (void)at, (void)n, (void)of;
    return -1;
}

static const H5FD_class_t driver_class = {
    .name = "temper",
    .maxaddr = INT64_MAX,
    .fc_degree = H5F_CLOSE_WEAK,
    .open = driver_open,
    .close = driver_close,
    .get_eoa = driver_allocated,
    .set_eoa = driver_allocate,
    .get_eof = driver_end,
    .read = driver_read,
    .write = driver_write,
    .fl_map = H5FD_FLMAP_DICHOTOMY,
};

static hid_t driver_file(driver *d, int fd)
{
    struct stat s;
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS), id = H5FDregister(&driver_class);

    if (fstat(fd, &s) != 0 || H5Pset_driver(access, id, NULL) < 0)
        return -1;
    d->fd = fd;
    d->end = (haddr_t)s.st_size;
    opening = d;
    return H5Fopen("file", H5F_ACC_RDONLY, access);
}

/* ---- what it finds ---- */

static void put(child *c, uint64_t v)
{
    fwrite(&v, sizeof(v), 1, c->out);
}

static void put_text(child *c, const char *text, size_t n)
{
    put(c, n);
    fwrite(text, 1, n, c->out);
}

/* Says why the file is refused, and ends the child. May come in the midst of a record. */
static _Noreturn void refuse(child *c, const char *name, const char *why)
{
    const int n = fprintf(c->out, "%s%s%s", name, name[0] != '\0' ? ": " : "", why);
    put(c, (uint64_t)n);
    fflush(c->out);
    _exit(EXIT_REFUSED);
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
    const H5T_order_t order = H5Tget_order(type);

    if (H5Tget_fields(type, &sign, &exponent, &exponent_bits, &mantissa, &mantissa_bits) < 0 ||
        (order != H5T_ORDER_LE && order != H5T_ORDER_BE) || H5Tget_norm(type) != H5T_NORM_IMPLIED)
        return TP_DTYPE_NONE;
    if (mantissa != 0 || exponent != mantissa_bits || sign != exponent + exponent_bits ||
        sign + 1 != 8 * size || H5Tget_ebias(type) != ((size_t)1 << (exponent_bits - 1)) - 1)
        return TP_DTYPE_NONE; /* not as IEEE 754 lays them out */
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
        refuse(c, name, "more filters than are read (8)");
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

/* Writes the record of the chunk at these coordinates; 0 if none is stored there. HDF5 1.10 has no call that
 * gives the place of a chunk well: H5Dget_chunk_info and _by_coord walk the table up to it, which takes
 * minutes for 10^5 chunks, and name the wrong chunk where a dimension other than the first is unlimited.
 * H5Dread_chunk finds it as H5Dread does, so it is called, and the driver notes the place instead of reading.
 */
static int put_chunk(child *c, hid_t set, const hsize_t *at, uint64_t number)
{
    uint32_t mask = 0;
    char buffer[1]; /* not touched */

    c->driver.n_noted = 0;
    c->driver.noting = 1;
    const int found = H5Dread_chunk(set, H5P_DEFAULT, at, &mask, buffer) >= 0 && c->driver.n_noted == 1;
    c->driver.noting = 0;
    if (found) {
        put(c, number);
        put(c, c->driver.offset);
        put(c, c->driver.bytes);
        put(c, mask);
    }
    return found;
}

/* Goes through the grid, row-major, until it has met all chunks that are stored. */
static void put_chunk_table(child *c, hid_t set, int rank, const hsize_t *dims, const hsize_t *chunk,
                            const char *name)
{
    const hid_t space = H5Dget_space(set); /* H5S_ALL does not work in 1.10 */
    hsize_t at[H5S_MAX_RANK] = {0}, stored = 0;
    uint64_t grid = 1, n = 0;

    if (H5Dget_num_chunks(set, space, &stored) < 0)
        refuse(c, name, "its chunk table cannot be read");
    put(c, stored);
    for (int i = 0; stored > 0 && i < rank; i++) {
        const uint64_t length = dims[i] / chunk[i] + (dims[i] % chunk[i] != 0);
        if (length > 0 && grid > MAX_CHUNKS / length)
            refuse(c, name, "more chunks than are read (2^26)");
        grid *= length;
    }
    for (uint64_t k = 0; k < grid && n < stored; k++) {
        n += (uint64_t)put_chunk(c, set, at, k);
        for (int i = rank - 1; i >= 0; i--) { /* the next chunk of the grid */
            at[i] += chunk[i];
            if (at[i] < dims[i])
                break;
            at[i] = 0;
        }
    }
    if (n != stored)
        refuse(c, name, "its chunk table cannot be read");
}

static void put_chunks(child *c, hid_t set, hid_t plist, int rank, const char *name, const hsize_t *dims)
{
    hsize_t chunk[H5S_MAX_RANK];
    unsigned options = 0;

    if (H5Pget_chunk(plist, rank, chunk) != rank || H5Pget_chunk_opts(plist, &options) < 0)
        refuse(c, name, "its chunk shape cannot be read");
    for (int i = 0; i < rank; i++) {
        if (chunk[i] == 0)
            refuse(c, name, "its chunk shape has a 0");
        put(c, chunk[i]);
    }
    put_filters(c, plist, name);
    put(c, (options & H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS) != 0);
    put_chunk_table(c, set, rank, dims, chunk, name);
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
    const hid_t plist = H5Dget_create_plist(set);
    const H5D_layout_t layout = H5Pget_layout(plist);

    if (layout != H5D_CONTIGUOUS && layout != H5D_COMPACT && layout != H5D_CHUNKED)
        refuse(c, name, "a virtual dataset is not followed"); /* asking for its space would */
    const hid_t space = H5Dget_space(set);
    const int rank = H5Sget_simple_extent_ndims(space);
    if (rank < 1 || rank > TP_MAX_DIMS || H5Sget_simple_extent_type(space) != H5S_SIMPLE)
        return; /* scalars and deep arrays are no training data */
    H5Sget_simple_extent_dims(space, dims, NULL);
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
        put_chunks(c, set, plist, rank, name, dims);
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
    H5Tset_size(memory, variable ? H5T_VARIABLE : width + 1); /* with the zero at its end */
    H5Tset_cset(memory, H5Tget_cset(type));
    char *buffer = calloc((size_t)n, width + 1);
    if (buffer != NULL && H5Aread(attribute, memory, buffer) >= 0) {
        for (hssize_t i = 0; i < n; i++) {
            const char *item = variable ? ((char **)(void *)buffer)[i] : buffer + (size_t)i * (width + 1);
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

static int has_control_character(const char *name)
{
    for (; *name != '\0'; name++)
        if ((unsigned char)*name < ' ' || *name == 127)
            return 1;
    return 0;
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
        if (has_control_character(link)) /* names come up in messages of one line */
            refuse(c, path, "a name in it has a control character");
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

/* No network, no new program, no file opened, made or removed. */
static int lock_down(void)
{
    static const int denied[] = {
        SCMP_SYS(socket),   SCMP_SYS(connect),   SCMP_SYS(execve),   SCMP_SYS(execveat),  SCMP_SYS(unlink),
        SCMP_SYS(unlinkat), SCMP_SYS(rename),    SCMP_SYS(renameat), SCMP_SYS(renameat2), SCMP_SYS(mkdir),
        SCMP_SYS(truncate), SCMP_SYS(ftruncate), SCMP_SYS(creat),    SCMP_SYS(ptrace),    SCMP_SYS(fork),
        SCMP_SYS(open),     SCMP_SYS(openat),    SCMP_SYS(openat2)};
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
    int bad = ctx == NULL;

    for (size_t i = 0; !bad && i < sizeof(denied) / sizeof(denied[0]); i++)
        bad |= seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), denied[i], 0) < 0;
    bad = bad || seccomp_load(ctx) < 0;
    seccomp_release(ctx);
    return bad ? -1 : 0;
}

static void run_child(int fd, int out)
{
    child c = {0};
    hsize_t user_block = 0;

    out = fcntl(out, F_DUPFD, 5); /* out of the way of the file's new number */
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
#ifndef TP_SANITIZE /* they map terabytes of shadow */
    limit(RLIMIT_AS, MAX_MEMORY);
#endif
    if (lock_down() < 0)
        refuse(&c, "", "the index child cannot be locked down (seccomp)");
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    H5PLset_loading_state(0);
    c.file = driver_file(&c.driver, 3);
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
    const int64_t stop = now_ms() + (int64_t)MAX_SECONDS * 1000;

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

static tp_status refusal(const char *path, const unsigned char *bytes, size_t n)
{
    uint64_t text = 0;

    if (n >= sizeof(text))
        memcpy(&text, bytes + n - sizeof(text), sizeof(text));
    TP_CHECK(n >= sizeof(text) && text <= n - sizeof(text) && text < INT_MAX, TP_EDATA,
             "%s: the HDF5 index is damaged", path);
    TP_FAIL(TP_EDATA, "%s: %.*s", path, (int)text, (const char *)bytes + n - sizeof(text) - text);
}

static int reap(pid_t pid)
{
    int status = 0;

    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

static tp_status verdict(int status, const char *path, const unsigned char *bytes, size_t n)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_REFUSED)
        return refusal(path, bytes, n);
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
        (void)reap(pid);
        TP_FAIL(st, "%s", line);
    }
    return verdict(reap(pid), path, *bytes, *n);
}
