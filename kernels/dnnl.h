/* dnnl.h - what the oneDNN implementations share: one engine and stream for the process, and a primitive
 * whose memory objects are made once and pointed at the plan's memory before each run. */
#ifndef TP_KERNELS_DNNL_H
#define TP_KERNELS_DNNL_H
#include "kernels/op.h"
#include <oneapi/dnnl/dnnl.h>

#define TP_DNNL_ARGS 8

typedef struct tp_dnnl {
    dnnl_primitive_t prim;
    int serial; /* runs on the calling thread alone */
    int n_args;
    dnnl_exec_arg_t args[TP_DNNL_ARGS];
} tp_dnnl;

/* Turns a oneDNN status into TP_EUNSUP (the implementation declines) naming what was tried. */
tp_status tp_dnnl_check(dnnl_status_t st, const char *what);
#define TP_DNNL(call) TP_TRY(tp_dnnl_check((call), #call))

tp_status tp_dnnl_engine(dnnl_engine_t *out);

/* Dense row-major float32, with the last two dimensions swapped in memory if trans. */
tp_status tp_dnnl_md(dnnl_memory_desc_t *md, tp_shape shape, int trans);

/* Says how much work p will be, before it is made: what takes less time than waking other threads runs on
 * one. */
void tp_dnnl_work(tp_dnnl *p, double flops);

/* Attributes with the scratchpad in our hands. Destroy with dnnl_primitive_attr_destroy. */
tp_status tp_dnnl_attr(dnnl_primitive_attr_t *out);

/* Makes a primitive of op_desc. Adds its scratchpad's bytes to *scratch. The caller destroys *pd. */
tp_status tp_dnnl_primitive(tp_dnnl *p, const void *op_desc, dnnl_primitive_attr_t attr,
                            dnnl_primitive_desc_t hint, dnnl_primitive_desc_t *pd, size_t *scratch);

/* Makes a primitive of a descriptor whose attributes ask for a user scratchpad; argument 0 is the scratchpad.
 */
tp_status tp_dnnl_from_pd(tp_dnnl *p, dnnl_primitive_desc_t pd, size_t *scratch);

/* Adds an argument with this layout; its memory is bound before each run. Returns its position. */
tp_status tp_dnnl_arg(tp_dnnl *p, int arg, const dnnl_memory_desc_t *md);

/* Points argument i at data. */
tp_status tp_dnnl_bind(tp_dnnl *p, int i, void *data);
tp_status tp_dnnl_run(tp_dnnl *p);
void tp_dnnl_destroy(tp_dnnl *p);

#endif
