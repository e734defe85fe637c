/* snapshot.c - the states of a trainer as they were between two steps. On a GPU they are first copied within
 * its memory, which takes no longer than a step, and from there to the host beside the steps that follow. */
#include "host/core/mem.h"
#include "host/model/filters.h"
#include "host/train/trainer.h"
#include <string.h>

struct tp_snapshot {
    tp_trainer *t;
    char *host, *device; /* device: NULL where the states go to the host at once */
    size_t bytes;
    size_t *at; /* of each state */
};

static tp_status make(tp_snapshot *s)
{
    const int n = tp_trainer_n_states(s->t);

    TP_TRY(tp_alloc(&s->at, (size_t)n + 1, sizeof(size_t), "snapshot"));
    for (int i = 0; i < n; i++) {
        s->at[i] = s->bytes;
        s->bytes += tp_round_up(tp_tensor_bytes(&tp_trainer_state(s->t, i)->tensor));
    }
    TP_TRY(tp_device_host_alloc(s->t->dev, (void **)&s->host, s->bytes, "snapshot"));
    if (tp_device_kind_of(s->t->dev) == TP_CPU)
        return TP_OK;
    const tp_status st = tp_device_alloc(s->t->dev, (void **)&s->device, s->bytes, "snapshot");
    return st == TP_ENOMEM ? TP_OK : st;
}

tp_status tp_snapshot_new(tp_snapshot **out, tp_trainer *t)
{
    tp_snapshot *s = NULL;

    *out = NULL;
    TP_TRY(tp_alloc(&s, 1, sizeof(*s), "snapshot"));
    s->t = t;
    const tp_status st = make(s);
    if (st != TP_OK) {
        tp_snapshot_free(s);
        return st;
    }
    *out = s;
    return TP_OK;
}

void tp_snapshot_free(tp_snapshot *s)
{
    if (s == NULL)
        return;
    tp_device_host_release(s->t->dev, s->host);
    tp_device_release(s->t->dev, s->device);
    tp_free(s->at);
    tp_free(s);
}

tp_status tp_snapshot_take(tp_snapshot *s)
{
    tp_device *dev = s->t->dev;
    char *to = s->device != NULL ? s->device : s->host;

    for (int i = 0; i < tp_trainer_n_states(s->t); i++) {
        const tp_tensor *x = &tp_trainer_state(s->t, i)->tensor;
        TP_TRY(tp_device_enqueue_copy(dev, TP_QUEUE_RUN, to + s->at[i], x->data, tp_tensor_bytes(x),
                                      s->device != NULL ? TP_ON_DEVICE : TP_FROM_DEVICE));
    }
    if (s->device == NULL)
        return tp_device_mark(dev, TP_QUEUE_RUN, TP_MARK_SNAPSHOT);
    TP_TRY(tp_device_mark(dev, TP_QUEUE_RUN, TP_MARK_STATES));
    TP_TRY(tp_device_follow(dev, TP_QUEUE_OUT, TP_MARK_STATES));
    TP_TRY(tp_device_enqueue_copy(dev, TP_QUEUE_OUT, s->host, s->device, s->bytes, TP_FROM_DEVICE));
    return tp_device_mark(dev, TP_QUEUE_OUT, TP_MARK_SNAPSHOT);
}

tp_status tp_snapshot_await(tp_snapshot *s)
{
    TP_TRY(tp_device_await(s->t->dev, TP_MARK_SNAPSHOT));
    for (int i = 0; i < tp_trainer_n_states(s->t); i++) {
        const tp_state_tensor *state = tp_trainer_state(s->t, i);
        const size_t bytes = tp_tensor_bytes(&state->tensor);
        float *stored = NULL;
        if (!state->channels_last)
            continue;
        TP_TRY(tp_alloc(&stored, bytes, 1, state->name));
        memcpy(stored, s->host + s->at[i], bytes);
        tp_filters_to_first((float *)(void *)(s->host + s->at[i]), stored, state->shape);
        tp_free(stored);
    }
    return TP_OK;
}

tp_tensor tp_snapshot_at(const tp_snapshot *s, int i)
{
    const tp_state_tensor *state = tp_trainer_state(s->t, i);
    return (tp_tensor){s->host + s->at[i], state->shape, state->tensor.dtype};
}
