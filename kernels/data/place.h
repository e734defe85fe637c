/* place.h - where a step stands in its epoch, and how a sample of it is augmented: once for the
 * loops of the CPU and the kernels of a GPU. */
#ifndef TP_KERNELS_PLACE_H
#define TP_KERNELS_PLACE_H
#include "host/core/rng.h"
#include "kernels/op.h"

typedef struct tp_step_place {
    uint64_t seed, epoch;
    int64_t first; /* position in the epoch of the batch's first sample */
} tp_step_place;

TP_HD tp_step_place tp_step_place_of(const uint64_t *counter, int64_t steps_per_epoch, int64_t batch)
{
    const uint64_t per = (uint64_t)steps_per_epoch;
    tp_step_place at;
    at.seed = counter[0];
    at.epoch = counter[1] / per;
    at.first = (int64_t)(counter[1] % per) * batch;
    return at;
}

/* An image moves by (dy, dx) pixels into zeros, mirrored first if flip. */
typedef struct tp_augment {
    int64_t dy, dx;
    int flip;
} tp_augment;

TP_HD tp_augment tp_augment_of(const uint64_t *counter, tp_gather_attr a, int64_t sample)
{
    const tp_step_place at = tp_step_place_of(counter, a.steps_per_epoch, 1);
    const tp_rng4 r = tp_rng_draw(at.seed, TP_RNG_AUGMENT, (uint64_t)sample, at.epoch);
    const uint64_t span = 2 * (uint64_t)a.crop + 1;
    tp_augment move;
    move.dy = (int64_t)((r.v[0] * span) >> 32) - a.crop;
    move.dx = (int64_t)((r.v[1] * span) >> 32) - a.crop;
    move.flip = a.hflip && (r.v[2] >> 31) != 0;
    return move;
}

/* Where pixel (i, j) of the augmented plane comes from, or -1 in the padding. */
TP_HD int64_t tp_augment_source(tp_augment m, int64_t height, int64_t width, int64_t i, int64_t j)
{
    const int64_t row = i + m.dy, column = m.flip ? width - 1 - (j + m.dx) : j + m.dx;
    return row >= 0 && row < height && column >= 0 && column < width ? row * width + column : -1;
}

#endif
