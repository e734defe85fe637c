/* h5_index.h - the index child: reads the structure of an HDF5 file in a process of its own. */
#ifndef TP_DATA_H5_INDEX_H
#define TP_DATA_H5_INDEX_H
#include "temper/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The index is a byte stream of records; numbers are native uint64. A record starts with its kind. Text is a
 * length, then the bytes. The parent trusts none of it. */
enum {
    TP_H5_END = 0,
    TP_H5_ARRAY =
        1, /* name, dtype, big endian, rank, dims, layout, fill (8 bytes), then what the layout needs */
    TP_H5_ATTRIBUTE = 2 /* name of the dataset ("" for the root), name, text */
};
enum {
    TP_H5_CONTIGUOUS = 0, /* offset, bytes; offset UINT64_MAX: never written */
    TP_H5_COMPACT = 1,    /* text: the bytes */
    /* chunk dims, number of filters, filters, whether chunks that jut out are not filtered, number of stored
     * chunks, then of each its number in the row-major grid of chunks (increasing), offset, bytes, mask */
    TP_H5_CHUNKED = 2
};
enum { TP_H5_DEFLATE = 1, TP_H5_SHUFFLE = 2, TP_H5_FLETCHER32 = 3 };

#define TP_H5_MAX_FILTERS 8
#define TP_H5_NO_OFFSET   UINT64_MAX

/* Runs the child on a file that is open for reading. *bytes (free with tp_free) holds its stream. Errors:
 * TP_EDATA (the child refused the file, died, took too long or wrote too much), TP_EIO, TP_ENOMEM. */
tp_status tp_h5_index(int fd, const char *path, unsigned char **bytes, size_t *n) TP_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
