/* place.c - where each temporary lives in the arena: biggest first, in the lowest gap that fits among the
 * neighbours in time (the greedy-by-size rule of Pisarchyk & Lee, "Efficient memory management for deep
 * neural net inference", 2020). */
#include "host/core/mem.h"
#include "host/graph/plan.h"
#include <stdlib.h>

static int by_size(const void *a, const void *b, void *slots)
{
    const tp_slot *s = slots;
    const int i = *(const int *)a, j = *(const int *)b;
    if (s[i].bytes != s[j].bytes)
        return s[i].bytes < s[j].bytes ? 1 : -1;
    return i - j;
}

/* Inserts order[at] into order[0..at), which is sorted by offset. */
static void insert_by_offset(const tp_slot *slots, int *order, int at)
{
    const int moved = order[at];
    int k = at;
    while (k > 0 && slots[order[k - 1]].offset > slots[moved].offset) {
        order[k] = order[k - 1];
        k--;
    }
    order[k] = moved;
}

size_t tp_slots_place(tp_slot *slots, int n, int *order)
{
    size_t total = 0;

    for (int i = 0; i < n; i++)
        order[i] = i;
    qsort_r(order, (size_t)n, sizeof(int), by_size, slots);
    for (int i = 0; i < n; i++) {
        tp_slot *s = &slots[order[i]];
        size_t at = 0;
        s->bytes = (s->bytes + TP_ALIGN - 1) / TP_ALIGN * TP_ALIGN;
        for (int k = 0; k < i; k++) {
            const tp_slot *o = &slots[order[k]];
            if (o->last < s->first || s->last < o->first)
                continue;
            if (o->offset >= at + s->bytes)
                break;
            if (o->offset + o->bytes > at)
                at = o->offset + o->bytes;
        }
        s->offset = at;
        total = at + s->bytes > total ? at + s->bytes : total;
        insert_by_offset(slots, order, i);
    }
    return total;
}
