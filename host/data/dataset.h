/* dataset.h - what the files of an open data set share: sources, columns, and reading rows of them. */
#ifndef TP_DATA_DATASET_H
#define TP_DATA_DATASET_H
#include "host/data/h5.h"
#include "temper/data.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Values of tp_data.part_of beyond the parts themselves. */
enum { TP_ROW_UNUSED = 255, TP_ROW_DROPPED = 254 };

#define TP_DIGEST_BYTES 32

/* One run of rows: a whole file, or one group of it. first is the number of its first row among all rows. */
typedef struct tp_source {
    tp_h5 *file; /* borrowed from tp_data.files */
    char *path;
    char *prefix; /* NULL, or the group the datasets are in */
    int part;     /* the part all rows belong to; -1: they are told apart otherwise */
    int64_t first, n;
} tp_source;

typedef enum tp_role {
    TP_ROLE_INPUT,
    TP_ROLE_TARGET,
    TP_ROLE_WEIGHT,
    TP_ROLE_TIME,
    TP_ROLE_SLICE,
    TP_ROLE_SPLIT
} tp_role;

/* One array over all sources. */
typedef struct tp_column {
    char *name;
    tp_role role;
    int index; /* of the input */
    const tp_h5_array *in[TP_PARTS];
    tp_dtype dtype;
    tp_shape sample;
    int64_t row_len;
    size_t row_bytes;
    void *values;    /* resident: all rows, as stored */
    double *numbers; /* time, slice and split: all rows as numbers */
    unsigned char digest[TP_DIGEST_BYTES];
} tp_column;

struct tp_data {
    int n_files, n_sources, n_columns, n_inputs;
    tp_h5 *files[TP_PARTS];
    tp_source sources[TP_PARTS];
    tp_column *columns; /* inputs, then target, weight, time and split where there are any */
    tp_column *target_column, *weight_column, *time_column, *slice_column, *split_column;
    tp_data_input *inputs;
    tp_data_target target;
    tp_data_array weight;
    int64_t n_rows;
    int resident;
    uint8_t *part_of;        /* (n_rows) part of each row, TP_ROW_UNUSED or TP_ROW_DROPPED */
    int requested[TP_PARTS]; /* the part was asked for, so it may not be empty */
    int64_t part_rows[TP_PARTS];
    int64_t *part_table[TP_PARTS];
    int64_t *class_count[TP_PARTS];
    float *norm; /* shifts and scales of all inputs and of the target */
    int64_t dropped;
    char hash[2 * TP_DIGEST_BYTES + 1];
};

/* dataset_bind.c: opens the files and finds, checks and lines up every dataset of the spec. */
tp_status tp_dataset_bind(tp_data *d, const tp_data_spec *spec) TP_MUST_USE;

/* dataset_load.c: reads each column once: keeps it if resident, hashes it, applies the non-finite policy. */
tp_status tp_dataset_load(tp_data *d, tp_column *c, tp_nonfinite policy) TP_MUST_USE;
void tp_dataset_hash(tp_data *d);

/* dataset_check.c: value ranges of the used rows, class counts, number of categories and classes. */
tp_status tp_dataset_check(tp_data *d, const tp_data_spec *spec) TP_MUST_USE;

/* split.c: fills part_of and requested; then, once rows are dropped, the table of each part. */
tp_status tp_split_assign(tp_data *d, const tp_data_spec *spec) TP_MUST_USE;
tp_status tp_split_tables(tp_data *d, const tp_data_spec *spec) TP_MUST_USE;

/* stats.c: shift and scale of every input and of the target. */
tp_status tp_stats_fit(tp_data *d, const tp_data_spec *spec) TP_MUST_USE;

/* Rows [row, row + n) of all rows of a column, in stored dtype, from memory or from the files. */
tp_status tp_column_read(const tp_data *d, const tp_column *c, int64_t row, int64_t n, void *dst) TP_MUST_USE;

/* Calls fn with consecutive pieces of a column, in row order, each as stored and of at most some MiB. */
typedef tp_status (*tp_piece_fn)(void *ctx, int64_t row, int64_t n, const void *values);
tp_status tp_column_visit(const tp_data *d, const tp_column *c, tp_piece_fn fn, void *ctx) TP_MUST_USE;

/* As tp_column_visit, as numbers: values is (n, row_len). */
typedef tp_status (*tp_numbers_fn)(void *ctx, int64_t row, int64_t n, const double *values);
tp_status tp_column_numbers(const tp_data *d, const tp_column *c, tp_numbers_fn fn, void *ctx) TP_MUST_USE;

/* n elements as double; 64-bit integers beyond 2^53 are rounded. */
void tp_decode(tp_dtype dtype, const void *src, int64_t n, double *dst);
int tp_dtype_is_float(tp_dtype dtype);

/* "chicago.h5: x: row 17", for messages; row counts all rows, the text that of its source. */
typedef struct tp_place {
    char text[512];
} tp_place;
tp_place tp_column_place(const tp_data *d, const tp_column *c, int64_t row);

#ifdef __cplusplus
}
#endif
#endif
