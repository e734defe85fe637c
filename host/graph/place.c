/* place.c - where each temporary lives in the arena: one after another, each in the lowest gap that fits
 * among its neighbours in time. The order decides how good that is, and none is always best: by size and by
 * breadth (Pisarchyk & Lee, "Efficient memory management for deep neural net inference", 2020), by length of
 * life, by time and some shuffled ones are tried until one needs no more than what is alive at once at the
 * worst step; else the smallest arena is kept. */
#include "host/core/mem.h"
#include "host/graph/plan.h"
#include <stdlib.h>

#define RULES    4
#define SHUFFLES 16 /* orders tried where the rules leave gaps */

typedef int (*order_fn)(const tp_slot *a, const tp_slot *b);

static int biggest_first(const tp_slot *a, const tp_slot *b)
{
    return a->bytes != b->bytes ? (a->bytes < b->bytes ? 1 : -1) : 0;
}

static int longest_first(const tp_slot *a, const tp_slot *b)
{
    const int life_a = a->last - a->first, life_b = b->last - b->first;
    return life_a != life_b ? life_b - life_a : biggest_first(a, b);
}

static int broadest_first(const tp_slot *a, const tp_slot *b)
{
    return a->breadth != b->breadth ? (a->breadth < b->breadth ? 1 : -1) : longest_first(a, b);
}

static int earliest_first(const tp_slot *a, const tp_slot *b)
{
    return a->first != b->first ? a->first - b->first : biggest_first(a, b);
}

static int broadest_alone(const tp_slot *a, const tp_slot *b)
{
    return a->breadth != b->breadth ? (a->breadth < b->breadth ? 1 : -1) : 0;
}

typedef struct sort_ctx {
    const tp_slot *slots;
    order_fn before;
    uint32_t shuffle; /* 0: ties keep their order */
} sort_ctx;

static uint32_t mixed(uint32_t i, uint32_t shuffle)
{
    return shuffle != 0 ? (i ^ shuffle) * 2654435761u : i;
}

static int compare(const void *a, const void *b, void *ctx)
{
    const sort_ctx *x = ctx;
    const int i = *(const int *)a, j = *(const int *)b;
    const int rank = x->before(&x->slots[i], &x->slots[j]);
    const uint32_t p = mixed((uint32_t)i, x->shuffle), q = mixed((uint32_t)j, x->shuffle);
    return rank != 0 ? rank : (p > q) - (p < q);
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

/* An attempt: each rule in turn, then the slots of one breadth shuffled. */
static size_t place(tp_slot *slots, int n, int *order, int attempt)
{
    static const order_fn rules[RULES] = {biggest_first, longest_first, broadest_first, earliest_first};
    sort_ctx ctx = {slots, attempt < RULES ? rules[attempt] : broadest_alone,
                    attempt < RULES ? 0 : (uint32_t)(attempt - RULES + 1)};
    size_t total = 0;

    for (int i = 0; i < n; i++)
        order[i] = i;
    qsort_r(order, (size_t)n, sizeof(int), compare, &ctx);
    for (int i = 0; i < n; i++) {
        tp_slot *s = &slots[order[i]];
        size_t at = 0;
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

static size_t alive_at(const tp_slot *slots, int n, int step)
{
    size_t bytes = 0;
    for (int i = 0; i < n; i++)
        if (slots[i].first <= step && step <= slots[i].last)
            bytes += slots[i].bytes;
    return bytes;
}

/* The number of bytes alive only grows where a slot begins. */
static void find_breadth(tp_slot *slots, int n)
{
    for (int i = 0; i < n; i++)
        slots[i].breadth = 0;
    for (int k = 0; k < n; k++) {
        const int step = slots[k].first;
        const size_t bytes = alive_at(slots, n, step);
        for (int i = 0; i < n; i++)
            if (slots[i].first <= step && step <= slots[i].last && bytes > slots[i].breadth)
                slots[i].breadth = bytes;
    }
}

size_t tp_slots_place(tp_slot *slots, int n, int *order)
{
    size_t best = 0, bound = 0;
    int chosen = 0;

    for (int i = 0; i < n; i++)
        slots[i].bytes = tp_round_up(slots[i].bytes);
    find_breadth(slots, n);
    for (int i = 0; i < n; i++)
        bound = slots[i].breadth > bound ? slots[i].breadth : bound;
    for (int k = 0; k < RULES + SHUFFLES && (k == 0 || best > bound); k++) {
        const size_t total = place(slots, n, order, k);
        if (k == 0 || total < best) {
            best = total;
            chosen = k;
        }
    }
    return place(slots, n, order, chosen);
}
