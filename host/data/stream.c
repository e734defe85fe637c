#include "host/data/stream.h"
#include "host/core/mem.h"
#include "host/core/order.h"
#include "host/data/dataset.h"
#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define N_WINDOWS      2
#define WINDOW_DEFAULT ((int64_t)256 << 20)
#define SMALL_BLOCK    ((int64_t)256 << 10)

/* Rows of several blocks, in the order they were read. */
typedef struct window {
    int64_t n;
    int64_t epoch, number;
    uint64_t seed; /* of the order of its rows */
    char **values; /* of each array: (capacity, row_bytes) */
    int64_t *rows;
    int full;
} window;

struct tp_stream {
    const tp_data *d;
    tp_stream_spec spec;
    const tp_column **columns;
    int n_columns;
    size_t max_row_bytes;
    int64_t n, steps;
    int64_t n_blocks, *block; /* (n_blocks + 1) position in the part's table where each block begins */
    int64_t span;             /* rows of the file a block covers at most */
    int64_t blocks_per_window, n_windows, capacity;
    char *scratch; /* the reader's: span rows of one array */

    window windows[N_WINDOWS];
    int64_t skip; /* rows of the first window that come before the first batch */

    /* the caller's */
    int current;
    int64_t taken; /* rows taken from the current window */
    int64_t place; /* of the next row in its epoch */

    /* shared, under lock */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    int has_lock, has_thread, stop;
    tp_status failed;
    char message[1024];
};

/* ---- blocks ---- */

static int64_t block_key(const tp_data *d, int64_t row, int64_t span, int64_t *source_first)
{
    int i = 0;
    while (i + 1 < d->n_sources && row >= d->sources[i + 1].first)
        i++;
    *source_first = d->sources[i].first;
    return (row - d->sources[i].first) / span;
}

/* Rows of the chunks of the array that has most bytes in a row: several chunks if they are small, as long as
 * a window holds many blocks; fewer rows if a window could not hold one block. */
static int64_t block_span(const tp_stream *s, int64_t window_bytes)
{
    int64_t span = 1;
    size_t heaviest = 0, total = 0;
    for (int i = 0; i < s->n_columns; i++) {
        const tp_column *c = s->columns[i];
        total += c->row_bytes;
        for (int k = 0; k < s->d->n_sources && c->row_bytes > heaviest; k++)
            span = c->in[k]->chunk_rows;
        heaviest = c->row_bytes > heaviest ? c->row_bytes : heaviest;
    }
    assert(total > 0);
    const int64_t fit = window_bytes / (int64_t)total;
    while (span < fit / 32 && span * (int64_t)total < SMALL_BLOCK)
        span *= 2;
    span = span < fit ? span : fit;
    return span < 1 ? 1 : span;
}

static tp_status cut_blocks(tp_stream *s, int64_t window_bytes)
{
    const int64_t *table = tp_data_part_table(s->d, s->spec.part);
    s->span = block_span(s, window_bytes);
    int64_t room = 0, key = -1, first = -1;
    for (int64_t i = 0; i < s->n; i++) {
        int64_t row_first;
        const int64_t row_key = block_key(s->d, table[i], s->span, &row_first);
        if (row_key == key && row_first == first)
            continue;
        key = row_key;
        first = row_first;
        if (s->n_blocks + 1 >= room) {
            const int64_t grown = room ? 2 * room : 64;
            TP_TRY(tp_realloc(&s->block, (size_t)room, (size_t)grown, sizeof *s->block, "list of blocks"));
            room = grown;
        }
        s->block[s->n_blocks++] = i;
    }
    s->block[s->n_blocks] = s->n;
    return TP_OK;
}

static int64_t block_at(const tp_stream *s, int64_t epoch, int64_t i)
{
    return s->spec.shuffle ? tp_order_at(s->spec.seed, (uint64_t)epoch, s->n_blocks, i) : i;
}

static int64_t window_end(const tp_stream *s, int64_t number)
{
    const int64_t end = (number + 1) * s->blocks_per_window;
    return end < s->n_blocks ? end : s->n_blocks;
}

static int64_t window_rows(const tp_stream *s, int64_t epoch, int64_t number)
{
    int64_t n = 0;
    for (int64_t i = number * s->blocks_per_window; i < window_end(s, number); i++) {
        const int64_t b = block_at(s, epoch, i);
        n += s->block[b + 1] - s->block[b];
    }
    return n;
}

/* ---- the reader thread ---- */

static tp_status read_block(tp_stream *s, window *w, int64_t b)
{
    const int64_t *rows = tp_data_part_table(s->d, s->spec.part) + s->block[b];
    const int64_t n = s->block[b + 1] - s->block[b];
    const int64_t covered = rows[n - 1] - rows[0] + 1;
    for (int i = 0; i < s->n_columns; i++) {
        const tp_column *c = s->columns[i];
        char *to = w->values[i] + (size_t)w->n * c->row_bytes;
        char *raw = covered == n ? to : s->scratch;
        TP_TRY(tp_column_read(s->d, c, rows[0], covered, raw));
        for (int64_t k = 0; k < n && raw != to; k++)
            memcpy(to + (size_t)k * c->row_bytes, raw + (size_t)(rows[k] - rows[0]) * c->row_bytes,
                   c->row_bytes);
    }
    memcpy(w->rows + w->n, rows, (size_t)n * sizeof *rows);
    w->n += n;
    return TP_OK;
}

/* A counter that no order over less than 2^62 blocks uses, so that windows and blocks are independent. */
static uint64_t window_seed(const tp_stream *s, int64_t epoch, int64_t number)
{
    const tp_rng4 r =
        tp_rng_draw(s->spec.seed, TP_RNG_ORDER, UINT64_C(1) << 63 | (uint64_t)number, (uint64_t)epoch);
    return (uint64_t)r.v[0] << 32 | r.v[1];
}

static tp_status fill(tp_stream *s, window *w, int64_t epoch, int64_t number)
{
    w->n = 0;
    w->epoch = epoch;
    w->number = number;
    w->seed = window_seed(s, epoch, number);
    for (int64_t i = number * s->blocks_per_window; i < window_end(s, number); i++)
        TP_TRY(read_block(s, w, block_at(s, epoch, i)));
    return TP_OK;
}

/* Waits until the caller is done with window w; 0 when the stream ends. */
static int wait_empty(tp_stream *s, const window *w)
{
    pthread_mutex_lock(&s->lock);
    while (w->full && !s->stop)
        pthread_cond_wait(&s->changed, &s->lock);
    const int go_on = !s->stop;
    pthread_mutex_unlock(&s->lock);
    return go_on;
}

static void *reader(void *arg)
{
    tp_stream *s = arg;
    int64_t epoch = s->windows[0].epoch, number = s->windows[0].number;
    tp_status st = TP_OK;
    for (int i = 0; st == TP_OK && wait_empty(s, &s->windows[i]); i = (i + 1) % N_WINDOWS) {
        st = fill(s, &s->windows[i], epoch, number);
        number++;
        if (number == s->n_windows) {
            number = 0;
            epoch++;
        }
        pthread_mutex_lock(&s->lock);
        s->windows[i].full = st == TP_OK;
        if (st != TP_OK) {
            s->failed = st;
            snprintf(s->message, sizeof s->message, "%s", tp_last_error());
        }
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
    }
    return NULL;
}

/* ---- the caller ---- */

static tp_status wait_full(tp_stream *s, const window *w)
{
    pthread_mutex_lock(&s->lock);
    while (!w->full && s->failed == TP_OK)
        pthread_cond_wait(&s->changed, &s->lock);
    const tp_status st = w->full ? TP_OK : s->failed;
    pthread_mutex_unlock(&s->lock);
    TP_CHECK(st == TP_OK, st, "%s", s->message);
    return TP_OK;
}

static void hand_back(tp_stream *s, window *w)
{
    pthread_mutex_lock(&s->lock);
    w->full = 0;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    s->current = (s->current + 1) % N_WINDOWS;
    s->taken = 0;
}

tp_status tp_stream_next(tp_stream *s, void *const *slots, int64_t *rows, int64_t *n)
{
    const int64_t left = s->n - s->place;
    const int64_t want = s->spec.batch < left ? s->spec.batch : left;
    for (int64_t k = 0; k < want; k++) {
        window *w = &s->windows[s->current];
        if (s->taken == 0)
            TP_TRY(wait_full(s, w));
        const int64_t i_row = s->taken + s->skip;
        const int64_t at = s->spec.shuffle ? tp_order_at(w->seed, (uint64_t)w->epoch, w->n, i_row) : i_row;
        for (int i = 0; i < s->n_columns; i++) {
            const size_t bytes = s->columns[i]->row_bytes;
            if (slots[i])
                memcpy((char *)slots[i] + (size_t)k * bytes, w->values[i] + (size_t)at * bytes, bytes);
        }
        if (rows)
            rows[k] = w->rows[at];
        if (++s->taken + s->skip == w->n) {
            s->skip = 0;
            hand_back(s, w);
        }
    }
    s->place = s->place + want == s->n ? 0 : s->place + want;
    *n = want;
    return TP_OK;
}

/* ---- opening ---- */

static tp_status take_columns(tp_stream *s)
{
    const tp_data *d = s->d;
    TP_TRY(tp_alloc(&s->columns, (size_t)d->n_columns, sizeof *s->columns, "list of datasets"));
    for (int i = 0; i < d->n_columns; i++)
        if (d->columns[i].role <= TP_ROLE_WEIGHT)
            s->columns[s->n_columns++] = &d->columns[i];
    for (int i = 0; i < s->n_columns; i++)
        if (s->columns[i]->row_bytes > s->max_row_bytes)
            s->max_row_bytes = s->columns[i]->row_bytes;
    return TP_OK;
}

/* Windows are as large as the largest blocks can make them, so that any order of blocks fits. */
static tp_status make_windows(tp_stream *s, int64_t window_bytes)
{
    int64_t largest = 0, total = 0;
    for (int64_t b = 0; b < s->n_blocks; b++)
        largest = s->block[b + 1] - s->block[b] > largest ? s->block[b + 1] - s->block[b] : largest;
    for (int i = 0; i < s->n_columns; i++)
        total += (int64_t)s->columns[i]->row_bytes;
    assert(largest > 0 && total > 0);
    s->blocks_per_window = window_bytes / (largest * total);
    if (s->blocks_per_window < 1)
        s->blocks_per_window = 1;
    if (s->blocks_per_window > s->n_blocks)
        s->blocks_per_window = s->n_blocks;
    s->n_windows = (s->n_blocks + s->blocks_per_window - 1) / s->blocks_per_window;
    s->capacity = s->blocks_per_window * largest < s->n ? s->blocks_per_window * largest : s->n;
    TP_TRY(tp_alloc(&s->scratch, (size_t)s->span, s->max_row_bytes, "block of rows"));
    for (int k = 0; k < N_WINDOWS; k++) {
        window *w = &s->windows[k];
        TP_TRY(tp_alloc(&w->values, (size_t)s->n_columns, sizeof *w->values, "shuffle window"));
        TP_TRY(tp_alloc(&w->rows, (size_t)s->capacity, sizeof *w->rows, "shuffle window"));
        for (int i = 0; i < s->n_columns; i++)
            TP_TRY(tp_alloc(&w->values[i], (size_t)s->capacity, s->columns[i]->row_bytes, "shuffle window"));
    }
    return TP_OK;
}

/* The window that holds the first row asked for, and the rows of it that come before. */
static void seek(tp_stream *s)
{
    int64_t number = 0;
    s->place = s->skip = s->spec.step * s->spec.batch;
    for (int64_t n = window_rows(s, s->spec.epoch, 0); s->skip >= n;
         n = window_rows(s, s->spec.epoch, number)) {
        s->skip -= n;
        number++;
    }
    s->windows[0].epoch = s->spec.epoch;
    s->windows[0].number = number;
}

static tp_status start(tp_stream *s)
{
    TP_CHECK(pthread_mutex_init(&s->lock, NULL) == 0, TP_ENOMEM, "stream: no lock to be had");
    if (pthread_cond_init(&s->changed, NULL) != 0) {
        pthread_mutex_destroy(&s->lock);
        TP_FAIL(TP_ENOMEM, "stream: no condition variable to be had");
    }
    s->has_lock = 1;
    TP_CHECK(pthread_create(&s->thread, NULL, reader, s) == 0, TP_ENOMEM,
             "stream: no reader thread to be had");
    s->has_thread = 1;
    return TP_OK;
}

static tp_status open_stream(tp_stream *s)
{
    const tp_stream_spec *spec = &s->spec;
    TP_CHECK(spec->part >= TP_TRAIN && spec->part < TP_PARTS, TP_EINVAL, "stream: there is no part %d",
             (int)spec->part);
    s->n = tp_data_part_rows(s->d, spec->part);
    TP_CHECK(s->n > 0, TP_EINVAL, "stream: the %s part has no rows", tp_part_name(spec->part));
    TP_CHECK(spec->batch > 0, TP_EINVAL, "stream: batch is %lld, want at least 1", (long long)spec->batch);
    TP_CHECK(spec->window_bytes >= 0, TP_EINVAL, "stream: window is %lld bytes, want at least 0",
             (long long)spec->window_bytes);
    s->steps = (s->n - 1) / spec->batch + 1;
    TP_CHECK(spec->epoch >= 0 && spec->epoch <= UINT32_MAX, TP_EINVAL,
             "stream: epoch is %lld, want 0 to %lld", (long long)spec->epoch, (long long)UINT32_MAX);
    TP_CHECK(spec->step >= 0 && spec->step < s->steps, TP_EINVAL, "stream: step is %lld, want 0 to %lld",
             (long long)spec->step, (long long)(s->steps - 1));
    const int64_t window_bytes = spec->window_bytes ? spec->window_bytes : WINDOW_DEFAULT;
    TP_TRY(take_columns(s));
    TP_TRY(cut_blocks(s, window_bytes));
    TP_TRY(make_windows(s, window_bytes));
    seek(s);
    return start(s);
}

tp_status tp_stream_open(tp_stream **out, const tp_data *d, const tp_stream_spec *spec)
{
    *out = NULL;
    tp_stream *s = NULL;
    TP_TRY(tp_alloc(&s, 1, sizeof *s, "stream"));
    s->d = d;
    s->spec = *spec;
    const tp_status st = open_stream(s);
    if (st == TP_OK)
        *out = s;
    else
        tp_stream_close(s);
    return st;
}

void tp_stream_close(tp_stream *s)
{
    if (!s)
        return;
    if (s->has_thread) {
        pthread_mutex_lock(&s->lock);
        s->stop = 1;
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
    }
    if (s->has_lock) {
        pthread_cond_destroy(&s->changed);
        pthread_mutex_destroy(&s->lock);
    }
    for (int k = 0; k < N_WINDOWS; k++) {
        for (int i = 0; i < s->n_columns && s->windows[k].values; i++)
            tp_free(s->windows[k].values[i]);
        tp_free(s->windows[k].values);
        tp_free(s->windows[k].rows);
    }
    tp_free(s->scratch);
    tp_free(s->block);
    tp_free(s->columns);
    tp_free(s);
}

int tp_stream_n_arrays(const tp_stream *s)
{
    return s->n_columns;
}

int64_t tp_stream_steps(const tp_stream *s)
{
    return s->steps;
}
