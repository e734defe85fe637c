/* feed.c - data on the device: the whole data set where it is resident, else the rows of one batch at a time;
 * and the nodes that make a batch of it. */
#include "host/core/mem.h"
#include "host/train/trainer.h"
#include <string.h>

/* ---- memory on the device ---- */

static tp_status copy(tp_trainer *t, tp_staged *s, const void *values, const char *what)
{
    const size_t bytes = tp_tensor_bytes(&s->tensor);

    TP_TRY(tp_device_alloc(t->dev, &s->tensor.data, bytes, what));
    s->owned = 1;
    return tp_device_upload(t->dev, s->tensor.data, values, bytes);
}

/* The data set's own memory serves the CPU. */
static tp_status stage(tp_trainer *t, tp_staged *s, tp_tensor host)
{
    s->tensor = host;
    if (tp_device_kind_of(t->dev) == TP_CPU || host.data == NULL)
        return TP_OK;
    return copy(t, s, host.data, "data set");
}

static void unstage(tp_trainer *t, tp_staged *s)
{
    if (s->owned)
        tp_device_release(t->dev, s->tensor.data);
}

static tp_status stage_floats(tp_trainer *t, tp_staged *s, const float *values, int64_t n)
{
    if (n == 0)
        return TP_OK;
    s->tensor = (tp_tensor){NULL, {1, {n}}, TP_F32};
    return copy(t, s, values, "norms and class weights");
}

/* ---- one batch at a time ---- */

/* The place of an array of one batch in the block; its address once the block is there. */
static void place(tp_feed *f, tp_tensor *x)
{
    x->data = f->block != NULL ? f->block + f->bytes : NULL;
    f->bytes += tp_round_up(tp_tensor_bytes(x));
}

static void place_all(tp_feed *f)
{
    f->bytes = 0;
    for (int i = 0; i < f->n; i++)
        place(f, &f->to[i]->tensor);
    place(f, &f->rows);
    place(f, &f->mask);
}

static void add_array(tp_trainer *t, tp_staged *s, const tp_data_array *a)
{
    s->tensor = (tp_tensor){NULL, {.nd = a->sample.nd + 1, .d = {t->opts.batch}}, a->dtype};
    for (int i = 0; i < a->sample.nd; i++)
        s->tensor.shape.d[i + 1] = a->sample.d[i];
    t->feed.to[t->feed.n++] = s;
}

static tp_status make_ring(tp_trainer *t)
{
    tp_feed *f = &t->feed;

    if (tp_device_kind_of(t->dev) == TP_CPU)
        return TP_OK;
    for (int i = 0; i < TP_TRAINER_FEED; i++) {
        TP_TRY(tp_device_host_alloc(t->dev, (void **)&f->host[i], f->bytes, "batches on their way"));
        TP_TRY(tp_device_alloc(t->dev, (void **)&f->device[i], f->bytes, "batches on their way"));
    }
    return TP_OK;
}

static tp_status make_block(tp_trainer *t)
{
    tp_feed *f = &t->feed;
    const tp_shape batch = {1, {t->opts.batch}};

    for (int i = 0; i < tp_data_n_inputs(t->data); i++)
        add_array(t, &t->inputs[i], &tp_data_input_at(t->data, i)->array);
    if (tp_data_target_of(t->data) != NULL)
        add_array(t, &t->target, &tp_data_target_of(t->data)->array);
    if (tp_data_weight(t->data) != NULL)
        add_array(t, &t->weight, tp_data_weight(t->data));
    f->rows = (tp_tensor){NULL, batch, TP_I64};
    f->mask = (tp_tensor){NULL, batch, TP_F32};
    place_all(f);
    TP_TRY(tp_device_alloc(t->dev, (void **)&f->block, f->bytes, "a batch"));
    place_all(f);
    return make_ring(t);
}

/* Reads the next batch of a stream into memory that is laid out as the block. */
static tp_status fill(tp_trainer *t, tp_stream *s, char *to)
{
    tp_feed *f = &t->feed;
    const int64_t batch = t->opts.batch;
    void *arrays[TP_TRAINER_INPUTS + 2];
    int64_t *rows = (int64_t *)(void *)(to + ((char *)f->rows.data - f->block)), n = 0;
    float *mask = (float *)(void *)(to + ((char *)f->mask.data - f->block));

    for (int i = 0; i < f->n; i++)
        arrays[i] = to + ((char *)f->to[i]->tensor.data - f->block);
    TP_TRY(tp_stream_next(s, arrays, rows, &n));
    for (int i = 0; i < f->n; i++) {
        const size_t row = tp_tensor_bytes(&f->to[i]->tensor) / (size_t)batch;
        memset((char *)arrays[i] + (size_t)n * row, 0, (size_t)(batch - n) * row);
    }
    for (int64_t i = 0; i < batch; i++) {
        mask[i] = i < n ? 1.0f : 0.0f;
        rows[i] = i < n ? rows[i] : 0;
    }
    return TP_OK;
}

tp_status tp_feed_next(tp_trainer *t, tp_stream *s)
{
    tp_feed *f = &t->feed;
    const int at = f->next;

    if (f->host[0] == NULL)
        return fill(t, s, f->block);
    f->next = (at + 1) % TP_TRAINER_FEED;
    TP_TRY(tp_device_await(t->dev, TP_MARK_FILLED + at));
    TP_TRY(fill(t, s, f->host[at]));
    TP_TRY(tp_device_follow(t->dev, TP_QUEUE_IN, TP_MARK_TAKEN + at));
    TP_TRY(tp_device_enqueue_copy(t->dev, TP_QUEUE_IN, f->device[at], f->host[at], f->bytes, TP_TO_DEVICE));
    TP_TRY(tp_device_mark(t->dev, TP_QUEUE_IN, TP_MARK_FILLED + at));
    TP_TRY(tp_device_follow(t->dev, TP_QUEUE_RUN, TP_MARK_FILLED + at));
    TP_TRY(tp_device_enqueue_copy(t->dev, TP_QUEUE_RUN, f->block, f->device[at], f->bytes, TP_ON_DEVICE));
    return tp_device_mark(t->dev, TP_QUEUE_RUN, TP_MARK_TAKEN + at);
}

tp_status tp_feed_train(tp_trainer *t, int64_t step)
{
    tp_feed *f = &t->feed;
    const tp_stream_spec spec = {.part = TP_TRAIN,
                                 .batch = t->opts.batch,
                                 .shuffle = 1,
                                 .seed = t->opts.seed,
                                 .epoch = step / t->steps_per_epoch,
                                 .step = step % t->steps_per_epoch};

    if (tp_data_resident(t->data))
        return TP_OK;
    if (f->stream == NULL || f->next_step != step) {
        tp_stream_close(f->stream);
        f->stream = NULL;
        TP_TRY(tp_stream_open(&f->stream, t->data, &spec));
    }
    f->next_step = step + 1;
    return tp_feed_next(t, f->stream);
}

/* ---- the whole ---- */

static tp_status stage_arrays(tp_trainer *t)
{
    union {
        const void *in;
        void *out;
    } p;

    for (int i = 0; i < tp_data_n_inputs(t->data); i++)
        TP_TRY(stage(t, &t->inputs[i], tp_data_input_at(t->data, i)->array.values));
    if (tp_data_target_of(t->data) != NULL)
        TP_TRY(stage(t, &t->target, tp_data_target_of(t->data)->array.values));
    if (tp_data_weight(t->data) != NULL)
        TP_TRY(stage(t, &t->weight, tp_data_weight(t->data)->values));
    for (int part = 0; part < TP_PARTS; part++) {
        p.in = tp_data_part_table(t->data, (tp_part)part);
        TP_TRY(stage(t, &t->rows[part],
                     (tp_tensor){p.out, {1, {tp_data_part_rows(t->data, (tp_part)part)}}, TP_I64}));
    }
    return TP_OK;
}

tp_status tp_feed_stage(tp_trainer *t)
{
    const float *shift, *scale;

    for (int i = 0; i < tp_data_n_inputs(t->data); i++) {
        const tp_data_input *in = tp_data_input_at(t->data, i);
        TP_TRY(stage_floats(t, &t->shift[i], in->shift, in->n_norm));
        TP_TRY(stage_floats(t, &t->scale[i], in->scale, in->n_norm));
    }
    const int64_t n_norm = tp_model_target_norm(t->model, &shift, &scale);
    TP_TRY(stage_floats(t, &t->target_shift, shift, n_norm));
    TP_TRY(stage_floats(t, &t->target_scale, scale, n_norm));
    if (t->opts.class_weight != NULL)
        TP_TRY(stage_floats(t, &t->class_weight, t->opts.class_weight, tp_model_outputs(t->model)));
    return tp_data_resident(t->data) ? stage_arrays(t) : make_block(t);
}

void tp_feed_free(tp_trainer *t)
{
    tp_feed *f = &t->feed;

    tp_stream_close(f->stream);
    for (int i = 0; i < TP_TRAINER_FEED; i++) {
        tp_device_host_release(t->dev, f->host[i]);
        tp_device_release(t->dev, f->device[i]);
    }
    tp_device_release(t->dev, f->block);
    for (int p = 0; p < TP_PARTS; p++)
        unstage(t, &t->rows[p]);
    for (int i = 0; i < TP_TRAINER_INPUTS; i++) {
        unstage(t, &t->inputs[i]);
        unstage(t, &t->shift[i]);
        unstage(t, &t->scale[i]);
    }
    unstage(t, &t->target);
    unstage(t, &t->weight);
    unstage(t, &t->target_shift);
    unstage(t, &t->target_scale);
    unstage(t, &t->class_weight);
}

/* ---- batches as nodes ---- */

static tp_val bind(tp_graph *g, const char *name, const tp_tensor *t)
{
    return t->data != NULL ? tp_variable(g, name, *t) : 0;
}

static tp_gather_attr attr_of(const tp_batch_graph *b, int64_t first)
{
    return (tp_gather_attr){.staged = !tp_data_resident(b->t->data), .first = first};
}

void tp_feed_bind(tp_batch_graph *b, tp_part part, int64_t steps, int shuffle)
{
    tp_trainer *t = b->t;
    const int64_t batch = b->batch;

    b->counter = bind(b->g, "counter", &t->counter);
    for (int i = 0; i < tp_data_n_inputs(t->data); i++) {
        b->inputs[i] = bind(b->g, tp_data_input_at(t->data, i)->array.name, &t->inputs[i].tensor);
        b->shift[i] = bind(b->g, "shift", &t->shift[i].tensor);
        b->scale[i] = bind(b->g, "scale", &t->scale[i].tensor);
    }
    b->target = bind(b->g, "target", &t->target.tensor);
    b->target_shift = bind(b->g, "target_shift", &t->target_shift.tensor);
    b->target_scale = bind(b->g, "target_scale", &t->target_scale.tensor);
    b->class_weight = bind(b->g, "class_weight", &t->class_weight.tensor);
    tp_graph_scope(b->g, "batch");
    if (tp_data_resident(t->data)) {
        b->index = tp_sample_index(b->g, b->counter, bind(b->g, "rows", &t->rows[part].tensor),
                                   (tp_sample_attr){batch, steps, shuffle});
        b->weight = b->index != 0 ? b->index + 1 : 0;
    } else {
        b->index = bind(b->g, "rows", &t->feed.rows);
        b->weight = bind(b->g, "mask", &t->feed.mask);
    }
    b->present = b->weight;
    if (t->weight.tensor.data == NULL)
        return;
    const tp_val w =
        tp_gather_batch(b->g, bind(b->g, "weight", &t->weight.tensor), b->index, 0, 0, 0, attr_of(b, 0));
    b->weight = tp_mul(b->g, b->weight, tp_reshape(b->g, w, (tp_shape){1, {batch}}));
}

tp_val tp_feed_input(tp_batch_graph *b, int i, tp_val index, int64_t first, int augmented)
{
    const tp_data_input *in = tp_data_input_at(b->t->data, i);
    tp_gather_attr a = attr_of(b, first);

    a.ids = in->kind == TP_INPUT_IDS;
    if (augmented && in->kind == TP_INPUT_IMAGE) {
        a.crop = in->crop_padding;
        a.hflip = in->hflip;
        a.steps_per_epoch = b->t->steps_per_epoch;
    }
    return tp_gather_batch(b->g, b->inputs[i], index, b->shift[i], b->scale[i],
                           a.crop > 0 || a.hflip ? b->counter : 0, a);
}

tp_val tp_feed_target(tp_batch_graph *b, tp_val index, int64_t first)
{
    tp_gather_attr a = attr_of(b, first);

    a.ids = tp_data_target_of(b->t->data)->kind == TP_TARGET_CLASS;
    const tp_val y = tp_gather_batch(b->g, b->target, index, b->target_shift, b->target_scale, 0, a);
    tp_shape s = tp_val_shape(b->g, y);
    if (a.ids)
        s.nd = 1;
    else
        s = (tp_shape){2, {s.d[0], tp_model_outputs(b->t->model)}};
    return tp_reshape(b->g, y, s);
}
