/* bench.h - the op benchmark: every implementation of an op on a device, over many shapes, each checked
 * before it is timed.
 *
 * A row is one implementation on one shape. Its output is compared with the op's plain reference in double;
 * only then is it timed, with its data in the cache (hot: run after run) and out of it (cold: before each run
 * a buffer larger than the last-level cache is streamed through). A share of 1 means that the row moves bytes
 * as fast as a large copy, or computes as fast as a large matrix product, did on the same device in the same
 * call; hot rows whose data fits a cache may exceed it. */
#ifndef TP_BENCH_H
#define TP_BENCH_H
#include "temper/device.h"
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Seconds: the median and the quartiles of n runs. */
typedef struct tp_bench_time {
    int n;
    double median, low, high;
    double bytes_per_second, flops_per_second, share; /* at the median */
} tp_bench_time;

typedef enum tp_bench_state {
    TP_BENCH_TIMED,
    TP_BENCH_SKIPPED, /* declined the shape, or would take too long; `why` says which */
    TP_BENCH_WRONG    /* its output is not the reference's: it has no numbers */
} tp_bench_state;

typedef struct tp_bench_row {
    const char *op, *impl;
    const char *from;  /* "case 3", or the name of the shapes file */
    const char *shape; /* as in a shapes file */
    const char *attr;  /* "stride=1,1 pad=1,1"; "" if there is none */
    tp_bench_state state;
    const char *why;         /* "" for a timed row */
    double error, tolerance; /* relative to the reference's norm */
    double flops, bytes;     /* of one run, as the op counts them */
    tp_bench_time hot, cold;
} tp_bench_row;

/* What the rows were measured on. */
typedef struct tp_bench_head {
    const char *version, *library;    /* of Temper; of oneDNN */
    const char *machine;              /* the processor */
    const char *device, *device_note; /* as tp_device_text and tp_device_note */
    const char *precision;            /* "fp32", "tf32", "bf16" */
    int threads;
    double flush_bytes; /* streamed before a cold run */
    double copy_bytes_per_second, gemm_flops_per_second;
} tp_bench_head;

typedef struct tp_bench_opts {
    const char *device; /* as tp_device_open */
    int n_ops;          /* 0: every op */
    const char *const *ops;
    const char *shapes; /* a shapes file, used in place of the ops' cases and the shipped models; or NULL */
    int runs;           /* at least this many timed runs a row and cache state: 20 to 10000 */
    tp_precision precision;                              /* of matrix products and convolutions, on a GPU */
    void (*head)(void *user, const tp_bench_head *head); /* once, before the first row; or NULL */
    void (*row)(void *user, const tp_bench_row *row);    /* borrowed for the call */
    void *user;
} tp_bench_opts;
#define TP_BENCH_OPTS_INIT                                                                                   \
    {                                                                                                        \
        "auto", 0, NULL, NULL, 20, TP_PRECISION_FP32, NULL, NULL, NULL                                       \
    }

/* Errors: TP_EINVAL (an unknown op, with the nearest name; runs), TP_ENOENT (the shapes file), TP_EDATA (file
 * and line of a bad shape), TP_EDEVICE; TP_EINTERNAL after the last row if a row was wrong. */
TP_API tp_status tp_bench(const tp_bench_opts *opts) TP_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
