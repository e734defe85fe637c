#include "kernels/op.h"
#include <string.h>

#define TP_OP_ENTRY(name) &tp_op_##name,
const tp_op *const tp_op_table[] = {TP_OPS(TP_OP_ENTRY)};
const int tp_n_ops = TP_COUNT(tp_op_table);

const tp_op *tp_op_find(const char *name)
{
    for (int i = 0; i < tp_n_ops; i++)
        if (strcmp(tp_op_table[i]->name, name) == 0)
            return tp_op_table[i];
    return NULL;
}
