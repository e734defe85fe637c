/* device_cpu.c - the CPU: host memory, steps walked in order, threads inside the ops. */
#include "host/core/clock.h"
#include "host/core/mem.h"
#include "host/core/parallel.h"
#include "host/graph/plan.h"
#include <stdio.h>
#include <string.h>

static tp_status cpu_alloc(tp_device *dev, void **out, size_t bytes, const char *what)
{
    (void)dev;
    return tp_alloc(out, bytes, 1, what);
}

static void cpu_release(tp_device *dev, void *p)
{
    (void)dev;
    tp_free(p);
}

static tp_status cpu_copy(tp_device *dev, void *dst, const void *src, size_t bytes)
{
    (void)dev;
    memcpy(dst, src, bytes);
    return TP_OK;
}

static tp_status cpu_memory(tp_device *dev, size_t *free_bytes, size_t *total)
{
    (void)dev;
    *free_bytes = *total = 0;
    return TP_OK;
}

/* Everything is done when its call returns, so there is nothing to wait for. */
static tp_status cpu_enqueue_copy(tp_device *dev, tp_queue queue, void *dst, const void *src, size_t bytes,
                                  tp_direction direction)
{
    (void)queue, (void)direction;
    return cpu_copy(dev, dst, src, bytes);
}

static tp_status cpu_mark(tp_device *dev, tp_queue queue, int mark)
{
    (void)dev, (void)queue, (void)mark;
    return TP_OK;
}

static tp_status cpu_await(tp_device *dev, int mark)
{
    (void)dev, (void)mark;
    return TP_OK;
}

static tp_status run_step(tp_plan *p, tp_step *s)
{
    if (!p->opts.timed)
        return s->impl->run(&s->call);
    const double start = tp_seconds();
    const tp_status st = s->impl->run(&s->call);
    s->seconds = tp_seconds() - start;
    return st;
}

/* All bits set: NaN as float, so that whoever reads what nobody wrote shows it. */
static void poison_dead(tp_plan *p, const tp_step *s)
{
    for (int i = 0; i < s->n_dying; i++) {
        const tp_slot *slot = &p->slots[p->dying[s->first_dying + i]];
        memset(p->arena + slot->offset, 0xff, slot->bytes);
    }
}

static tp_status run_once(tp_plan *p)
{
    if (p->opts.poison)
        memset(p->arena, 0xff, p->arena_bytes);
    for (int i = 0; i < p->n_steps; i++) {
        if (p->steps[i].impl != NULL)
            TP_TRY(run_step(p, &p->steps[i]));
        if (p->opts.poison)
            poison_dead(p, &p->steps[i]);
    }
    return TP_OK;
}

static tp_status cpu_run(tp_device *dev, tp_plan *p, int64_t times)
{
    (void)dev;
    for (int64_t i = 0; i < times; i++)
        TP_TRY(run_once(p));
    return TP_OK;
}

static void cpu_forget(tp_device *dev, tp_plan *p)
{
    (void)dev, (void)p;
}

static const tp_impl *const *cpu_impls(const tp_op *op)
{
    return op->cpu;
}

static void cpu_close(tp_device *dev)
{
    (void)dev;
}

static const tp_device_ops cpu_ops = {.alloc = cpu_alloc,
                                      .release = cpu_release,
                                      .upload = cpu_copy,
                                      .download = cpu_copy,
                                      .memory = cpu_memory,
                                      .host_alloc = cpu_alloc,
                                      .host_release = cpu_release,
                                      .enqueue_copy = cpu_enqueue_copy,
                                      .mark = cpu_mark,
                                      .follow = cpu_mark,
                                      .await = cpu_await,
                                      .run = cpu_run,
                                      .forget = cpu_forget,
                                      .impls = cpu_impls,
                                      .close = cpu_close};

void tp_device_cpu_model(char *buf, size_t size)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");

    snprintf(buf, size, "unknown processor");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon != NULL) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(buf, size, "%s", colon + 2);
            break;
        }
    }
    if (f != NULL)
        fclose(f);
}

tp_status tp_device_cpu_open(tp_device *dev)
{
    char model[160];

    tp_device_cpu_model(model, sizeof(model));
    dev->kind = TP_CPU;
    dev->ops = &cpu_ops;
    snprintf(dev->text, sizeof(dev->text), "cpu: %s, %d threads", model, tp_threads());
    return TP_OK;
}
