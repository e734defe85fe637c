/* h5.c - the parent's side: checks the index child's stream, then reads rows with pread and a pool of
 * threads. */
#include "host/data/h5.h"
#include "host/core/mem.h"
#include "host/core/parallel.h"
#include "host/data/h5_index.h"
#include <errno.h>
#include <fcntl.h>
#include <libdeflate.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_CHUNK_BYTES       ((uint64_t)1 << 32) /* HDF5's own limit */
#define DEFLATE_MOST          1032                /* bytes that one byte of a deflate stream can stand for */
#define CONTIGUOUS_ROWS_BYTES ((size_t)4 << 20)
#define CHUNK_RECORD          (4 * sizeof(uint64_t)) /* bytes of a chunk in the index */

/* A stored chunk; number is its place in the row-major grid of chunks. */
typedef struct chunk {
    uint64_t number, offset, bytes;
    uint32_t mask; /* bit i: filter i was skipped for this chunk */
} chunk;

typedef struct array {
    tp_h5_array info;
    size_t size; /* of an element */
    int big_endian, layout, n_filters;
    int filter[TP_H5_MAX_FILTERS];
    int bare_edges; /* chunks that jut out of the shape are not filtered */
    unsigned char fill[8];
    uint64_t offset, bytes; /* contiguous */
    unsigned char *compact;
    int64_t chunk_dim[TP_MAX_DIMS], grid[TP_MAX_DIMS]; /* elements of a chunk; chunks, in each dimension */
    size_t chunk_bytes, largest; /* bytes of a chunk; most bytes that one is stored in */
    chunk *chunks;               /* in order of their numbers; what is not among them reads as fill */
    uint64_t n_chunks;
} array;

typedef struct attribute {
    char *owner, *name, *text;
} attribute;

struct tp_h5 {
    int fd;
    char *path;
    uint64_t file_bytes;
    array *arrays;
    int n_arrays;
    attribute *attributes;
    int n_attributes;
};

/* ---- reading the index ---- */

typedef struct cursor {
    const tp_h5 *f;
    const unsigned char *at, *end;
} cursor;

static tp_status take(cursor *c, uint64_t *v)
{
    TP_CHECK((size_t)(c->end - c->at) >= sizeof(*v), TP_EDATA, "%s: the HDF5 index ends early", c->f->path);
    memcpy(v, c->at, sizeof(*v));
    c->at += sizeof(*v);
    return TP_OK;
}

static tp_status take_bytes(cursor *c, char **out, uint64_t *n)
{
    TP_TRY(take(c, n));
    TP_CHECK(*n <= (uint64_t)(c->end - c->at), TP_EDATA, "%s: the HDF5 index ends early", c->f->path);
    TP_TRY(tp_alloc(out, *n + 1, 1, "HDF5 index"));
    memcpy(*out, c->at, *n);
    c->at += *n;
    return TP_OK;
}

static tp_status take_text(cursor *c, char **out)
{
    uint64_t n = 0;
    return take_bytes(c, out, &n);
}

static tp_status take_limited(cursor *c, uint64_t *v, uint64_t most, const char *name, const char *what)
{
    TP_TRY(take(c, v));
    TP_CHECK(*v <= most, TP_EDATA, "%s: %s: %s is %llu, at most %llu is read", c->f->path, name, what,
             (unsigned long long)*v, (unsigned long long)most);
    return TP_OK;
}

static tp_status take_shape(cursor *c, array *a)
{
    uint64_t rank = 0, d = 0;

    TP_TRY(take_limited(c, &rank, TP_MAX_DIMS, a->info.name, "its rank"));
    TP_CHECK(rank > 0, TP_EDATA, "%s: %s: its rank is 0", c->f->path, a->info.name);
    a->info.shape.nd = (int)rank;
    for (uint64_t i = 0; i < rank; i++) {
        TP_TRY(take_limited(c, &d, (uint64_t)1 << 60, a->info.name, "a dimension"));
        a->info.shape.d[i] = (int64_t)d;
    }
    TP_CHECK(tp_shape_check(a->info.shape, a->info.dtype) == TP_OK, TP_EDATA,
             "%s: %s: its shape is too large", c->f->path, a->info.name);
    a->info.row_bytes = a->size;
    for (uint64_t i = 1; i < rank; i++)
        a->info.row_bytes *= (size_t)a->info.shape.d[i];
    return TP_OK;
}

static tp_status check_extent(const tp_h5 *f, const array *a, uint64_t offset, uint64_t bytes)
{
    TP_CHECK(offset <= f->file_bytes && bytes <= f->file_bytes - offset, TP_EDATA,
             "%s: %s: data at %llu, %llu bytes, lies beyond the file's %llu bytes (truncated?)", f->path,
             a->info.name, (unsigned long long)offset, (unsigned long long)bytes,
             (unsigned long long)f->file_bytes);
    return TP_OK;
}

static tp_status take_contiguous(cursor *c, array *a)
{
    const uint64_t want = (uint64_t)a->info.shape.d[0] * a->info.row_bytes;

    TP_TRY(take(c, &a->offset));
    TP_TRY(take(c, &a->bytes));
    a->info.chunk_rows = a->info.row_bytes > 0 ? (int64_t)(CONTIGUOUS_ROWS_BYTES / a->info.row_bytes) : 1;
    if (a->info.chunk_rows < 1)
        a->info.chunk_rows = 1;
    if (a->offset == TP_H5_NO_OFFSET)
        return TP_OK;
    TP_CHECK(a->bytes >= want, TP_EDATA, "%s: %s: has %llu bytes, its shape needs %llu", c->f->path,
             a->info.name, (unsigned long long)a->bytes, (unsigned long long)want);
    return check_extent(c->f, a, a->offset, want);
}

static tp_status take_compact(cursor *c, array *a)
{
    char *bytes = NULL;
    uint64_t n = 0;
    const uint64_t want = (uint64_t)a->info.shape.d[0] * a->info.row_bytes;

    TP_TRY(take_bytes(c, &bytes, &n));
    a->compact = (unsigned char *)bytes;
    a->info.chunk_rows = a->info.shape.d[0] > 0 ? a->info.shape.d[0] : 1;
    TP_CHECK(n >= want, TP_EDATA, "%s: %s: has %llu bytes, its shape needs %llu", c->f->path, a->info.name,
             (unsigned long long)n, (unsigned long long)want);
    return TP_OK;
}

static int by_number(const void *a, const void *b)
{
    const uint64_t x = ((const chunk *)a)->number, y = ((const chunk *)b)->number;
    return (x > y) - (x < y);
}

static tp_status take_chunk(cursor *c, array *a, chunk *k, uint64_t in_grid)
{
    uint64_t mask = 0;

    TP_TRY(take(c, &k->number));
    TP_TRY(take(c, &k->offset));
    TP_TRY(take(c, &k->bytes));
    TP_TRY(take(c, &mask));
    k->mask = (uint32_t)mask;
    TP_CHECK(k->number < in_grid, TP_EDATA, "%s: %s: chunk %llu lies outside its shape of %llu chunks",
             c->f->path, a->info.name, (unsigned long long)k->number, (unsigned long long)in_grid);
    TP_TRY(check_extent(c->f, a, k->offset, k->bytes));
    TP_CHECK(k->bytes <= MAX_CHUNK_BYTES, TP_EDATA, "%s: %s: chunk %llu is stored in more than 2^32 bytes",
             c->f->path, a->info.name, (unsigned long long)k->number);
    if (k->bytes > a->largest)
        a->largest = (size_t)k->bytes;
    return TP_OK;
}

static tp_status take_chunks(cursor *c, array *a, uint64_t in_grid)
{
    TP_TRY(take(c, &a->n_chunks));
    TP_CHECK(a->n_chunks <= (uint64_t)(c->end - c->at) / CHUNK_RECORD, TP_EDATA,
             "%s: the HDF5 index ends early", c->f->path);
    TP_TRY(tp_alloc(&a->chunks, a->n_chunks, sizeof(chunk), "chunk table"));
    for (uint64_t i = 0; i < a->n_chunks; i++) {
        TP_TRY(take_chunk(c, a, &a->chunks[i], in_grid));
        TP_CHECK(i == 0 || a->chunks[i - 1].number < a->chunks[i].number, TP_EDATA,
                 "%s: the HDF5 index is damaged", c->f->path);
    }
    return TP_OK;
}

static tp_status take_chunked(cursor *c, array *a)
{
    uint64_t v = 0, n = 1, bytes = a->size;

    for (int i = 0; i < a->info.shape.nd; i++) {
        TP_TRY(take_limited(c, &v, MAX_CHUNK_BYTES, a->info.name, "a chunk dimension"));
        TP_CHECK(v > 0 && bytes <= MAX_CHUNK_BYTES / v, TP_EDATA,
                 "%s: %s: its chunks have more than 2^32 bytes", c->f->path, a->info.name);
        bytes *= v;
        a->chunk_dim[i] = (int64_t)v;
        a->grid[i] = (a->info.shape.d[i] + (int64_t)v - 1) / (int64_t)v;
        n *= (uint64_t)a->grid[i];
    }
    a->chunk_bytes = (size_t)bytes;
    a->info.chunk_rows = a->chunk_dim[0];
    TP_TRY(take_limited(c, &v, TP_H5_MAX_FILTERS, a->info.name, "its number of filters"));
    a->n_filters = (int)v;
    for (int i = 0; i < a->n_filters; i++) {
        TP_TRY(take_limited(c, &v, TP_H5_FLETCHER32, a->info.name, "a filter"));
        a->filter[i] = (int)v;
    }
    TP_TRY(take(c, &v));
    a->bare_edges = v != 0;
    return take_chunks(c, a, n);
}

static tp_status take_array(cursor *c, tp_h5 *f)
{
    const size_t n = (size_t)f->n_arrays;
    uint64_t v = 0;
    char *name = NULL;

    TP_TRY(tp_realloc(&f->arrays, n, n + 1, sizeof(array), "HDF5 index"));
    array *a = &f->arrays[n];
    f->n_arrays++;
    TP_TRY(take_text(c, &name));
    a->info.name = name;
    TP_TRY(take_limited(c, &v, TP_DTYPE_COUNT - 1, name, "its dtype"));
    a->info.dtype = (tp_dtype)v;
    a->size = tp_dtype_size(a->info.dtype);
    TP_CHECK(a->size > 0, TP_EDATA, "%s: %s: has no numeric dtype", f->path, name);
    TP_TRY(take(c, &v));
    a->big_endian = v != 0;
    TP_TRY(take_shape(c, a));
    TP_TRY(take_limited(c, &v, TP_H5_CHUNKED, name, "its layout"));
    a->layout = (int)v;
    TP_TRY(take(c, &v));
    memcpy(a->fill, &v, sizeof(v));
    switch (a->layout) {
    case TP_H5_CONTIGUOUS:
        return take_contiguous(c, a);
    case TP_H5_COMPACT:
        return take_compact(c, a);
    default:
        return take_chunked(c, a);
    }
}

static tp_status take_attribute(cursor *c, tp_h5 *f)
{
    const size_t n = (size_t)f->n_attributes;

    TP_TRY(tp_realloc(&f->attributes, n, n + 1, sizeof(attribute), "HDF5 index"));
    f->n_attributes++;
    TP_TRY(take_text(c, &f->attributes[n].owner));
    TP_TRY(take_text(c, &f->attributes[n].name));
    return take_text(c, &f->attributes[n].text);
}

static tp_status take_index(tp_h5 *f, const unsigned char *bytes, size_t n)
{
    cursor c = {f, bytes, bytes + n};
    uint64_t kind = 0;

    for (;;) {
        TP_TRY(take(&c, &kind));
        switch (kind) {
        case TP_H5_END:
            return TP_OK;
        case TP_H5_ARRAY:
            TP_TRY(take_array(&c, f));
            break;
        case TP_H5_ATTRIBUTE:
            TP_TRY(take_attribute(&c, f));
            break;
        default:
            TP_FAIL(TP_EDATA, "%s: the HDF5 index is damaged", f->path);
        }
    }
}

/* ---- opening ---- */

static tp_status open_file(tp_h5 *f, const char *path)
{
    struct stat s;
    unsigned char *bytes = NULL;
    size_t n = 0;

    f->fd = open(path, O_RDONLY | O_CLOEXEC);
    TP_CHECK(f->fd >= 0 || errno != ENOENT, TP_ENOENT, "%s: no such file", path);
    TP_CHECK(f->fd >= 0, TP_EIO, "%s: %s", path, strerror(errno));
    TP_CHECK(fstat(f->fd, &s) == 0, TP_EIO, "%s: %s", path, strerror(errno));
    TP_CHECK(S_ISREG(s.st_mode), TP_EDATA, "%s: is not a regular file", path);
    f->file_bytes = (uint64_t)s.st_size;
    tp_status st = tp_h5_index(f->fd, path, &bytes, &n);
    if (st == TP_OK)
        st = take_index(f, bytes, n);
    tp_free(bytes);
    return st;
}

tp_status tp_h5_open(tp_h5 **out, const char *path)
{
    tp_h5 *f = NULL;

    *out = NULL;
    TP_TRY(tp_alloc(&f, 1, sizeof(*f), "HDF5 file"));
    f->fd = -1;
    tp_status st = tp_strdup(&f->path, path);
    if (st == TP_OK)
        st = open_file(f, path);
    if (st != TP_OK) {
        tp_h5_close(f);
        return st;
    }
    *out = f;
    return TP_OK;
}

void tp_h5_close(tp_h5 *f)
{
    if (f == NULL)
        return;
    for (int i = 0; i < f->n_arrays; i++) {
        tp_free((void *)(uintptr_t)f->arrays[i].info.name);
        tp_free(f->arrays[i].compact);
        tp_free(f->arrays[i].chunks);
    }
    for (int i = 0; i < f->n_attributes; i++) {
        tp_free(f->attributes[i].owner);
        tp_free(f->attributes[i].name);
        tp_free(f->attributes[i].text);
    }
    if (f->fd >= 0)
        close(f->fd);
    tp_free(f->arrays);
    tp_free(f->attributes);
    tp_free(f->path);
    tp_free(f);
}

int tp_h5_count(const tp_h5 *f)
{
    return f->n_arrays;
}

const tp_h5_array *tp_h5_at(const tp_h5 *f, int i)
{
    return &f->arrays[i].info;
}

const tp_h5_array *tp_h5_find(const tp_h5 *f, const char *name)
{
    if (name[0] == '/')
        name++;
    for (int i = 0; i < f->n_arrays; i++)
        if (strcmp(f->arrays[i].info.name, name) == 0)
            return &f->arrays[i].info;
    return NULL;
}

const char *tp_h5_attribute(const tp_h5 *f, const tp_h5_array *a, const char *name)
{
    for (int i = 0; i < f->n_attributes; i++)
        if (strcmp(f->attributes[i].owner, a != NULL ? a->name : "") == 0 &&
            strcmp(f->attributes[i].name, name) == 0)
            return f->attributes[i].text;
    return NULL;
}

/* ---- filters ---- */

/* Fletcher's checksum over 16-bit big-endian words, as HDF5 stores it (format specification, "Fletcher32").
 */
static uint32_t fletcher32(const unsigned char *p, size_t n)
{
    uint32_t a = 0, b = 0;
    for (size_t i = 0; i < n; i += 2) {
        a += (uint32_t)p[i] << 8 | (i + 1 < n ? p[i + 1] : 0u);
        a = (a & 0xffff) + (a >> 16);
        b += a;
        b = (b & 0xffff) + (b >> 16);
    }
    return ((b & 0xffff) + (b >> 16)) << 16 | ((a & 0xffff) + (a >> 16));
}

static void unshuffle(unsigned char *dst, const unsigned char *src, size_t n, size_t size)
{
    const size_t count = n / size;
    for (size_t k = 0; k < size; k++)
        for (size_t i = 0; i < count; i++)
            dst[i * size + k] = src[k * count + i];
    memcpy(dst + count * size, src + count * size, n - count * size);
}

/* What one thread needs to decode chunks, had at the first: two buffers that filters go back and forth
 * between.
 */
typedef struct decoder {
    struct libdeflate_decompressor *inflate;
    unsigned char *buffer[2];
    size_t room;
} decoder;

static tp_status decoder_init(decoder *d, const array *a)
{
    if (d->inflate != NULL)
        return TP_OK;
    d->room = a->largest > a->chunk_bytes + 4 ? a->largest : a->chunk_bytes + 4;
    TP_TRY(tp_alloc(&d->buffer[0], d->room, 1, "chunk"));
    TP_TRY(tp_alloc(&d->buffer[1], d->room, 1, "chunk"));
    d->inflate = libdeflate_alloc_decompressor();
    TP_CHECK(d->inflate != NULL, TP_ENOMEM, "no memory for a decompressor");
    return TP_OK;
}

static void decoder_free(decoder *d)
{
    tp_free(d->buffer[0]);
    tp_free(d->buffer[1]);
    libdeflate_free_decompressor(d->inflate);
}

static tp_status read_at(const tp_h5 *f, const array *a, void *dst, size_t n, uint64_t offset)
{
    for (size_t done = 0; done < n;) {
        const ssize_t got = pread(f->fd, (char *)dst + done, n - done, (off_t)(offset + done));
        TP_CHECK(got > 0 || (got < 0 && errno == EINTR), TP_EIO, "%s: %s: reading %zu bytes at %llu: %s",
                 f->path, a->info.name, n, (unsigned long long)offset,
                 got == 0 ? "the file ended" : strerror(errno));
        done += got > 0 ? (size_t)got : 0;
    }
    return TP_OK;
}

/* Undoes filter i on buffer[*in] of n bytes. */
static tp_status undo_filter(const tp_h5 *f, const array *a, decoder *d, int i, int *in, size_t *n,
                             uint64_t number)
{
    unsigned char *src = d->buffer[*in], *dst = d->buffer[1 - *in];
    uint32_t stored;
    size_t got;

    switch (a->filter[i]) {
    case TP_H5_FLETCHER32:
        TP_CHECK(*n >= 4, TP_EDATA, "%s: %s: chunk %llu has no checksum", f->path, a->info.name,
                 (unsigned long long)number);
        *n -= 4;
        memcpy(&stored, src + *n, 4);
        TP_CHECK(stored == fletcher32(src, *n), TP_EDATA,
                 "%s: %s: chunk %llu is damaged: its checksum is wrong", f->path, a->info.name,
                 (unsigned long long)number);
        return TP_OK;
    case TP_H5_SHUFFLE:
        unshuffle(dst, src, *n, a->size);
        break;
    default:
        TP_CHECK(libdeflate_zlib_decompress(d->inflate, src, *n, dst, d->room, &got) == LIBDEFLATE_SUCCESS,
                 TP_EDATA, "%s: %s: chunk %llu is damaged: it does not inflate to %zu bytes", f->path,
                 a->info.name, (unsigned long long)number, a->chunk_bytes);
        *n = got;
    }
    *in = 1 - *in;
    return TP_OK;
}

static void fill_bytes(unsigned char *dst, const array *a, size_t n)
{
    for (size_t i = 0; i + a->size <= n; i += a->size)
        memcpy(dst + i, a->fill, a->size);
}

static int juts_out(const array *a, uint64_t number)
{
    for (int i = a->info.shape.nd - 1; i >= 0; i--) {
        const int64_t at = (int64_t)(number % (uint64_t)a->grid[i]);
        if ((at + 1) * a->chunk_dim[i] > a->info.shape.d[i])
            return 1;
        number /= (uint64_t)a->grid[i];
    }
    return 0;
}

/* The decoded bytes of a chunk, in one of the decoder's buffers; NULL for a chunk that is not stored. */
static tp_status decode(const tp_h5 *f, const array *a, decoder *d, uint64_t number,
                        const unsigned char **out)
{
    const chunk key = {.number = number};
    const chunk *k = a->n_chunks > 0 ? bsearch(&key, a->chunks, a->n_chunks, sizeof(chunk), by_number) : NULL;
    int in = 0;

    *out = NULL;
    if (k == NULL)
        return TP_OK;
    size_t n = (size_t)k->bytes;
    const uint32_t mask = a->bare_edges && juts_out(a, number) ? UINT32_MAX : k->mask;
    uint64_t most = k->bytes;
    for (int i = 0; i < a->n_filters; i++)
        if (a->filter[i] == TP_H5_DEFLATE && !((mask >> i) & 1u) && most < a->chunk_bytes)
            most *= DEFLATE_MOST;
    TP_CHECK(most >= a->chunk_bytes, TP_EDATA, "%s: %s: chunk %llu is damaged: %zu bytes cannot hold its %zu",
             f->path, a->info.name, (unsigned long long)number, n, a->chunk_bytes);
    TP_TRY(decoder_init(d, a)); /* not before: a few bytes must not claim gigabytes of memory */
    TP_TRY(read_at(f, a, d->buffer[0], n, k->offset));
    for (int i = a->n_filters - 1; i >= 0; i--)
        if (!((mask >> i) & 1u))
            TP_TRY(undo_filter(f, a, d, i, &in, &n, number));
    TP_CHECK(n == a->chunk_bytes, TP_EDATA, "%s: %s: chunk %llu decodes to %zu bytes, must be %zu", f->path,
             a->info.name, (unsigned long long)number, n, a->chunk_bytes);
    *out = d->buffer[in];
    return TP_OK;
}

/* ---- rows ---- */

typedef struct read_job {
    const tp_h5 *f;
    const array *a;
    int64_t row, n;
    unsigned char *dst;
    uint64_t first_chunk;
    tp_status st;
    char error[512];
} read_job;

/* Copies what chunk `number` holds of rows [row, row + n) to its place; data NULL: fills it. */
static void place(const read_job *j, uint64_t number, const unsigned char *data)
{
    const array *a = j->a;
    const int nd = a->info.shape.nd;
    int64_t origin[TP_MAX_DIMS], begin[TP_MAX_DIMS], len[TP_MAX_DIMS] = {0}, at[TP_MAX_DIMS], lines = 1;
    uint64_t left = number;

    for (int i = nd - 1; i >= 0; i--) {
        origin[i] = (int64_t)(left % (uint64_t)a->grid[i]) * a->chunk_dim[i];
        left /= (uint64_t)a->grid[i];
        const int64_t lo = i == 0 && j->row > origin[i] ? j->row : origin[i];
        const int64_t edge = origin[i] + a->chunk_dim[i], most = i == 0 ? j->row + j->n : a->info.shape.d[i];
        begin[i] = lo;
        len[i] = (edge < most ? edge : most) - lo;
        at[i] = 0;
        lines *= i < nd - 1 ? len[i] : 1;
    }
    const size_t bytes = (size_t)len[nd - 1] * a->size;
    for (int64_t line = 0; line < lines; line++) {
        int64_t from = 0, to = 0;
        for (int i = 0; i < nd; i++) {
            const int64_t pos = begin[i] + (i < nd - 1 ? at[i] : 0);
            from = from * a->chunk_dim[i] + (pos - origin[i]);
            to = to * a->info.shape.d[i] + (i == 0 ? pos - j->row : pos);
        }
        if (data != NULL)
            memcpy(j->dst + (size_t)to * a->size, data + (size_t)from * a->size, bytes);
        else
            fill_bytes(j->dst + (size_t)to * a->size, a, bytes);
        for (int i = nd - 2; i >= 0; i--) {
            if (++at[i] < len[i])
                break;
            at[i] = 0;
        }
    }
}

static tp_status read_chunks(read_job *j, int64_t begin, int64_t end)
{
    decoder d = {0};
    tp_status st = TP_OK;

    for (int64_t i = begin; i < end && st == TP_OK; i++) {
        const unsigned char *data = NULL;
        st = decode(j->f, j->a, &d, j->first_chunk + (uint64_t)i, &data);
        if (st == TP_OK)
            place(j, j->first_chunk + (uint64_t)i, data);
    }
    decoder_free(&d);
    return st;
}

static void chunk_piece(void *ctx, int64_t begin, int64_t end)
{
    read_job *j = ctx;
    const tp_status st = read_chunks(j, begin, end);
    if (st == TP_OK)
        return;
#pragma omp critical(tp_h5_error)
    if (j->st == TP_OK) { /* the line is the worker thread's own: carry it to the caller */
        j->st = st;
        snprintf(j->error, sizeof(j->error), "%s", tp_last_error());
    }
}

static tp_status read_chunked(const tp_h5 *f, const array *a, int64_t row, int64_t n, void *dst)
{
    read_job j = {.f = f, .a = a, .row = row, .n = n, .dst = dst};
    uint64_t per_band = 1;

    for (int i = 1; i < a->info.shape.nd; i++)
        per_band *= (uint64_t)a->grid[i];
    const int64_t first = row / a->chunk_dim[0], last = (row + n - 1) / a->chunk_dim[0];
    j.first_chunk = (uint64_t)first * per_band;
    tp_parallel((last - first + 1) * (int64_t)per_band, 1, chunk_piece, &j);
    if (j.st != TP_OK)
        TP_FAIL(j.st, "%s", j.error);
    return TP_OK;
}

static void swap_bytes(unsigned char *p, size_t n, size_t size)
{
    for (size_t i = 0; i + size <= n; i += size)
        for (size_t k = 0; k < size / 2; k++) {
            const unsigned char t = p[i + k];
            p[i + k] = p[i + size - 1 - k];
            p[i + size - 1 - k] = t;
        }
}

tp_status tp_h5_read(tp_h5 *f, const tp_h5_array *info, int64_t row, int64_t n, void *dst)
{
    const array *a = (const array *)(const void *)info; /* info is the first member */
    const size_t bytes = (size_t)n * info->row_bytes;

    TP_CHECK(row >= 0 && n >= 0 && row <= info->shape.d[0] && n <= info->shape.d[0] - row, TP_EINVAL,
             "%s: %s: %lld rows from %lld on do not lie in its %lld", f->path, info->name, (long long)n,
             (long long)row, (long long)info->shape.d[0]);
    if (bytes == 0)
        return TP_OK;
    if (a->layout == TP_H5_CHUNKED)
        TP_TRY(read_chunked(f, a, row, n, dst));
    else if (a->layout == TP_H5_COMPACT)
        memcpy(dst, a->compact + (size_t)row * info->row_bytes, bytes);
    else if (a->offset == TP_H5_NO_OFFSET)
        fill_bytes(dst, a, bytes);
    else
        TP_TRY(read_at(f, a, dst, bytes, a->offset + (uint64_t)row * info->row_bytes));
    if (a->big_endian)
        swap_bytes(dst, bytes, a->size);
    return TP_OK;
}
