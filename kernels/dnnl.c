#include "kernels/dnnl.h"
#include "host/core/parallel.h"
#include <pthread.h>
#include <string.h>

static dnnl_engine_t engine;
static dnnl_stream_t stream;
static dnnl_status_t opened;
static pthread_once_t open_once = PTHREAD_ONCE_INIT;

tp_status tp_dnnl_check(dnnl_status_t st, const char *what)
{
    TP_CHECK(st != dnnl_out_of_memory, TP_ENOMEM, "oneDNN: no memory in %s", what);
    TP_CHECK(st == dnnl_success, TP_EUNSUP, "oneDNN status %d in %.60s", (int)st, what);
    return TP_OK;
}

static void open_engine(void)
{
    opened = dnnl_engine_create(&engine, dnnl_cpu, 0);
    if (opened == dnnl_success)
        opened = dnnl_stream_create(&stream, engine, dnnl_stream_default_flags);
}

tp_status tp_dnnl_engine(dnnl_engine_t *out)
{
    pthread_once(&open_once, open_engine); /* plans may be made by several threads at once */
    TP_TRY(tp_dnnl_check(opened, "opening the CPU engine"));
    *out = engine;
    return TP_OK;
}

tp_status tp_dnnl_md(dnnl_memory_desc_t *md, tp_shape shape, int trans)
{
    dnnl_dims_t dims, strides;
    int64_t step = 1;

    for (int i = shape.nd - 1; i >= 0; i--) {
        dims[i] = shape.d[i];
        strides[i] = step;
        step *= shape.d[i];
    }
    if (trans) { /* the matrix as the op sees it is the transpose of what lies in memory */
        const int r = shape.nd - 2, k = shape.nd - 1;
        dims[r] = shape.d[k];
        dims[k] = shape.d[r];
        strides[r] = 1;
        strides[k] = shape.d[k];
    }
    TP_DNNL(dnnl_memory_desc_init_by_strides(md, shape.nd, dims, dnnl_f32, strides));
    return TP_OK;
}

tp_status tp_dnnl_attr(dnnl_primitive_attr_t *out)
{
    TP_DNNL(dnnl_primitive_attr_create(out));
    const tp_status st = tp_dnnl_check(
        dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user), "scratchpad mode");
    if (st != TP_OK)
        dnnl_primitive_attr_destroy(*out);
    return st;
}

tp_status tp_dnnl_arg(tp_dnnl *p, int arg, const dnnl_memory_desc_t *md)
{
    dnnl_engine_t e;

    TP_TRY(tp_dnnl_engine(&e));
    TP_DNNL(dnnl_memory_create(&p->args[p->n_args].memory, md, e, DNNL_MEMORY_NONE));
    p->args[p->n_args++].arg = arg;
    return TP_OK;
}

#define SERIAL_FLOPS 2e6

void tp_dnnl_work(tp_dnnl *p, double flops)
{
    p->serial = flops < SERIAL_FLOPS;
}

/* oneDNN divides the work when a primitive is made, so it is made and run with the same number of threads. */
static int enter(const tp_dnnl *p)
{
    const int threads = tp_threads();
    if (p->serial)
        tp_threads_set(1);
    return threads;
}

tp_status tp_dnnl_from_pd(tp_dnnl *p, dnnl_primitive_desc_t pd, size_t *scratch)
{
    const dnnl_memory_desc_t *pad = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);

    *scratch += (dnnl_memory_desc_get_size(pad) + 63) / 64 * 64;
    const int threads = enter(p);
    const dnnl_status_t made = dnnl_primitive_create(&p->prim, pd);
    tp_threads_set(threads);
    TP_DNNL(made);
    return tp_dnnl_arg(p, DNNL_ARG_SCRATCHPAD, pad);
}

tp_status tp_dnnl_primitive(tp_dnnl *p, const void *op_desc, dnnl_primitive_attr_t attr,
                            dnnl_primitive_desc_t hint, dnnl_primitive_desc_t *pd, size_t *scratch)
{
    dnnl_engine_t e;

    TP_TRY(tp_dnnl_engine(&e));
    const int threads = enter(p);
    const dnnl_status_t made = dnnl_primitive_desc_create(pd, op_desc, attr, e, hint);
    tp_threads_set(threads);
    TP_DNNL(made);
    return tp_dnnl_from_pd(p, *pd, scratch);
}

tp_status tp_dnnl_bind(tp_dnnl *p, int i, void *data)
{
    TP_DNNL(dnnl_memory_set_data_handle(p->args[i].memory, data));
    return TP_OK;
}

tp_status tp_dnnl_run(tp_dnnl *p)
{
    const int threads = enter(p);
    dnnl_status_t st = dnnl_primitive_execute(p->prim, stream, p->n_args, p->args);
    if (st == dnnl_success)
        st = dnnl_stream_wait(stream);
    tp_threads_set(threads);
    return tp_dnnl_check(st, "running a primitive");
}

void tp_dnnl_destroy(tp_dnnl *p)
{
    for (int i = 0; i < p->n_args; i++)
        dnnl_memory_destroy(p->args[i].memory);
    if (p->prim != NULL)
        dnnl_primitive_destroy(p->prim);
    memset(p, 0, sizeof(*p));
}
