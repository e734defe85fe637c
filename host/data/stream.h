/* stream.h - batches of a part that is read from its files while training runs.
 *
 * The rows of the part are cut into blocks, the chunks of its largest array; blocks come in a seeded order,
 * and some of them at a time fill a window, whose rows come in a seeded order again. Both orders are
 * functions of (seed, epoch), so a stream can be opened at any step and gives what it would have given there.
 * A reader thread fills one window while the caller takes batches from another. Works on resident data too.
 */
#ifndef TP_DATA_STREAM_H
#define TP_DATA_STREAM_H
#include "temper/data.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tp_stream tp_stream;

typedef struct tp_stream_spec {
    tp_part part;
    int64_t batch; /* rows of a batch; the last of an epoch may be shorter */
    int shuffle;   /* 0: rows in their own order */
    uint64_t seed;
    int64_t window_bytes; /* of one of the two windows, at least one block; 0: 256 MiB */
    int64_t epoch, step;  /* of the first batch; step is within the epoch */
} tp_stream_spec;

/* d is borrowed and must outlive the stream. Errors: TP_EINVAL (an empty part, batch, step), TP_ENOMEM. */
tp_status tp_stream_open(tp_stream **out, const tp_data *d, const tp_stream_spec *spec) TP_MUST_USE;
void tp_stream_close(tp_stream *s); /* NULL is fine; ends the reader thread */

/* Arrays of a batch: the inputs, then the target and the weight where there are any. */
int tp_stream_n_arrays(const tp_stream *s);

/* Batches of an epoch. */
int64_t tp_stream_steps(const tp_stream *s);

/* The next batch, over the end of an epoch into the next one. slots[i] has room for batch rows of array i in
 * stored dtype (NULL: not wanted); rows (NULL: not wanted) gets the row numbers; n the number of rows, those
 * behind it are left as they were. Errors: as tp_h5_read, also in every later call. */
tp_status tp_stream_next(tp_stream *s, void *const *slots, int64_t *rows, int64_t *n) TP_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
