/* h5.h - reading HDF5 files: a short-lived index child reads the structure, the parent reads the chunks
 * itself.
 *
 * The HDF5 library runs only in the child (no network, no other descriptors, memory and time limits, no
 * plugins), so a hostile file can kill the child but never the run. The child hands back datasets, dtypes,
 * shapes, filters, text attributes and the chunk table; every number is checked again here against the file's
 * size. Rows are then read with pread, inflated by libdeflate, unshuffled, checked (fletcher32) and
 * byte-swapped by a pool of threads. Threads: one tp_h5 may be read by several threads at once. */
#ifndef TP_DATA_H5_H
#define TP_DATA_H5_H
#include "temper/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tp_h5 tp_h5;

/* One numeric dataset. Rows are the items along dimension 0. */
typedef struct tp_h5_array {
    const char *name; /* path without the leading slash: "train/x" */
    tp_dtype dtype;
    tp_shape shape;
    size_t row_bytes; /* bytes of one row: product of shape.d[1..] times the element size */
    int64_t
        chunk_rows; /* rows of one chunk; the rows read together cheapest (contiguous data: a fixed block) */
} tp_h5_array;

/* Opens and indexes a file. Errors: TP_ENOENT (no such file), TP_EDATA (not HDF5, or something in it that is
 * refused: external storage or links, unknown filters, limits; the message names the dataset), TP_EIO. */
tp_status tp_h5_open(tp_h5 **out, const char *path) TP_MUST_USE;
void tp_h5_close(tp_h5 *f); /* NULL is fine */

int tp_h5_count(const tp_h5 *f);
const tp_h5_array *tp_h5_at(const tp_h5 *f, int i);
const tp_h5_array *tp_h5_find(const tp_h5 *f,
                              const char *name); /* with or without leading slash; NULL if none */

/* A text attribute of a dataset (array NULL: of the root group); NULL if there is none. An attribute that is
 * a list of strings is given as one string joined by '\n'. Borrowed from f. */
const char *tp_h5_attribute(const tp_h5 *f, const tp_h5_array *array, const char *name);

/* Reads rows [row, row + n) into dst, n * row_bytes bytes in native byte order and stored dtype.
 * Errors: TP_EINVAL (range), TP_EDATA (a chunk that does not decode, naming dataset and chunk), TP_EIO,
 * TP_ENOMEM. */
tp_status tp_h5_read(tp_h5 *f, const tp_h5_array *array, int64_t row, int64_t n, void *dst) TP_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
