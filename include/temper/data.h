/* data.h - training data: HDF5 datasets checked, split and ready to be batched.
 *
 * Opening reads every array that is used once, so that what is wrong with it is said before the first step:
 * the message names file, dataset, row, value and limit. Arrays that fit a memory limit stay in memory in
 * their stored dtype (resident); otherwise the inputs are streamed. Normalisation is fitted on the rows of
 * the training part only. Rows: when the parts come from separate files or groups, the arrays are joined one
 * part after another, and row numbers count through all of them. Threads: an open tp_data is read-only and
 * may be shared. */
#ifndef TP_DATA_H
#define TP_DATA_H
#include "temper/model.h" /* tp_input_kind */
#include "temper/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tp_part { TP_TRAIN = 0, TP_VALIDATION, TP_TEST, TP_PARTS } tp_part;

/* "train", "validation", "test" */
TP_API const char *tp_part_name(tp_part part);

/* ---- what to open: fields left 0 or NULL mean none, or the default said beside them ---- */

typedef enum tp_norm_kind {
    TP_NORM_NONE = 0,
    TP_NORM_STANDARD, /* mean 0 and standard deviation 1 over the training rows */
    TP_NORM_MINMAX,   /* [0, 1] over the training rows */
    TP_NORM_SCALE,    /* x' = x * factor */
    TP_NORM_GIVEN     /* x' = (x - shift) * scale with the arrays given, as a model carries them */
} tp_norm_kind;

typedef struct tp_input_spec {
    const char *name;     /* path of the dataset in the file: "x", "train/x" */
    tp_input_kind kind;   /* dense: (N) or (N,...); image: (N,H,W) or (N,C,H,W); ids: integers (N) or (N,K) */
    int64_t n_categories; /* ids: every id must be below it; 0: the largest id of the used rows + 1 */
    tp_norm_kind normalize;
    double factor;              /* TP_NORM_SCALE: finite, not 0 */
    const float *shift, *scale; /* TP_NORM_GIVEN: n_norm values each */
    int64_t n_norm;
    int crop_padding; /* image: random crop after padding by so many pixels; 0: none */
    int hflip;        /* image: random horizontal flip */
} tp_input_spec;

typedef enum tp_target_kind {
    TP_TARGET_NONE = 0,   /* no target: data to predict on */
    TP_TARGET_REGRESSION, /* numeric, (N) or (N,...) */
    TP_TARGET_CLASS,      /* integers (N) or (N,1), 0 <= class < n_classes */
    TP_TARGET_ONEHOT,     /* (N,n_classes), values in [0, 1], rows sum to 1 within 1e-3 */
    TP_TARGET_MULTILABEL  /* (N,n_classes), values in [0, 1] */
} tp_target_kind;

typedef enum tp_split_kind {
    TP_SPLIT_ALL = 0,  /* every row is in part `all` */
    TP_SPLIT_TIME,     /* part i has the rows with from[i] <= time < to[i]; from == to: no such part */
    TP_SPLIT_FRACTION, /* a keyed permutation; fractions for validation and test, the rest trains */
    TP_SPLIT_DATASET,  /* an integer dataset (N): 0 train, 1 validation, 2 test */
    TP_SPLIT_FILES,    /* source[i] is the file of part i; NULL: no such part */
    TP_SPLIT_GROUPS    /* source[i] is the group of part i in the one file: "train" finds "train/x" for "x" */
} tp_split_kind;

typedef struct tp_split_spec {
    tp_split_kind kind;
    tp_part all;
    double from[TP_PARTS], to[TP_PARTS]; /* in the units of the time dataset; parts may not overlap */
    double validation, test;             /* fractions in [0, 1), together below 1; rows are rounded */
    uint64_t seed;
    const char *dataset;
    const char *source[TP_PARTS];
} tp_split_spec;

typedef enum tp_nonfinite { TP_NONFINITE_REFUSE = 0, TP_NONFINITE_DROP } tp_nonfinite;

typedef struct tp_data_spec {
    const char *path; /* the HDF5 file; not used by TP_SPLIT_FILES */
    int n_inputs;     /* at least 1 */
    const tp_input_spec *inputs;
    tp_target_kind target_kind;
    const char *target;
    tp_norm_kind
        target_normalize; /* regression: per output, fitted or given as for inputs; not TP_NORM_SCALE */
    const float *target_shift, *target_scale; /* TP_NORM_GIVEN: target_n_norm values each */
    int64_t target_n_norm;
    int64_t n_classes;  /* class, onehot, multilabel; 0: as the data has it (class: from the training part) */
    const char *weight; /* optional: one number >= 0 a row */
    const char *time;   /* optional, but for TP_SPLIT_TIME: one number a row */
    const char *slice;  /* optional: one integer a row that tells groups of samples apart in reports */
    tp_split_spec split;
    tp_nonfinite nonfinite; /* rows that hold NaN or infinity: an error, or left out and counted */
    int64_t resident_bytes; /* stream what is larger; 0: half of the machine's memory; < 0: always stream */
} tp_data_spec;

/* ---- an open data set ---- */

typedef struct tp_data tp_data;

/* Opens, reads and checks everything. On failure *out is NULL. The spec is not needed afterwards.
 * Errors: TP_EINVAL (the spec itself), TP_ENOENT (file), TP_EDATA (what the file holds: a missing dataset
 * names the nearest one), TP_EIO, TP_ENOMEM. Free with tp_data_free. */
TP_API tp_status tp_data_open(tp_data **out, const tp_data_spec *spec) TP_MUST_USE;
TP_API void tp_data_free(tp_data *d); /* NULL is fine */

/* One array of rows. Everything pointed to is borrowed from the tp_data. */
typedef struct tp_data_array {
    const char *name;
    tp_dtype dtype;  /* as stored */
    tp_shape sample; /* of one row: dense (F...), image (C,H,W), ids (K), regression (K...), one-hot and
                        multi-label (n_classes); () for a class target and for weights */
    size_t row_bytes;
    tp_tensor values; /* (tp_data_rows, sample...) in host memory; a streamed input: data is NULL */
} tp_data_array;

typedef struct tp_data_input {
    tp_data_array array;
    tp_input_kind kind;
    int64_t n_categories; /* ids */
    int64_t n_norm; /* x' = (x - shift[j]) * scale[j]: j is the feature (dense, flattened) or channel; 0: x' =
                       x */
    const float *shift, *scale;
    int crop_padding, hflip;
} tp_data_input;

typedef struct tp_data_target {
    tp_data_array array;
    tp_target_kind kind;
    int64_t n_classes; /* 0 for regression */
    int64_t n_outputs; /* values a model must give for a sample: n_classes, or K */
    int64_t n_norm;    /* n_outputs where the target is normalised, y' = (y - shift) * scale; else 0 */
    const float *shift, *scale;
    const int64_t *class_count[TP_PARTS]; /* n_classes counts (one-hot: by largest value; multi-label: values
                                             >= 0.5); NULL for regression */
} tp_data_target;

TP_API int64_t tp_data_rows(const tp_data *d); /* of all sources, used or not */
TP_API int tp_data_resident(const tp_data *d); /* 1: inputs are in memory; 0: training streams them */
TP_API int tp_data_n_inputs(const tp_data *d);
TP_API const tp_data_input *tp_data_input_at(const tp_data *d, int i);
TP_API const tp_data_target *tp_data_target_of(const tp_data *d); /* NULL when there is none */
TP_API const tp_data_array *tp_data_weight(const tp_data *d);     /* NULL when there is none */
TP_API const double *tp_data_time(const tp_data *d);  /* tp_data_rows values; NULL when there is none */
TP_API const double *tp_data_slice(const tp_data *d); /* likewise: whole numbers */

/* The rows of a part, ascending; 0 and NULL when there is no such part. */
TP_API int64_t tp_data_part_rows(const tp_data *d, tp_part part);
TP_API const int64_t *tp_data_part_table(const tp_data *d, tp_part part);

/* Rows left out because of TP_NONFINITE_DROP. */
TP_API int64_t tp_data_dropped(const tp_data *d);

/* BLAKE2b over names, dtypes, shapes and bytes of the used arrays: 64 hexadecimal digits. Equal for equal
 * content, whatever the file's layout and compression. */
TP_API const char *tp_data_hash(const tp_data *d);

#ifdef __cplusplus
}
#endif
#endif
