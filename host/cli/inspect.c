/* inspect.c - temper inspect: what a safetensors file holds. */
#include "host/cli/cli.h"
#include "temper/safetensors.h"

static const char *const meta_keys[] = {"temper.step", "temper.model", "temper.layers"};
#define META_KEYS (sizeof(meta_keys) / sizeof(meta_keys[0]))

static void print_text(const tp_tensors *t, const char *hash)
{
    char shape[TP_SHAPE_TEXT_SIZE];

    for (int i = 0; i < tp_tensors_count(t); i++) {
        const tp_tensor *x = tp_tensors_at(t, i);
        printf("%-40s %-9s %s\n", tp_tensors_name(t, i), tp_dtype_name(x->dtype),
               tp_shape_text(x->shape, shape, sizeof(shape)));
    }
    for (size_t i = 0; i < META_KEYS; i++)
        if (tp_tensors_meta(t, meta_keys[i]) != NULL)
            printf("%s: %s\n", meta_keys[i], tp_tensors_meta(t, meta_keys[i]));
    printf("hash %s\n", hash);
}

static json_t *tensors_json(const tp_tensors *t)
{
    json_t *list = json_array();

    for (int i = 0; i < tp_tensors_count(t); i++) {
        const tp_tensor *x = tp_tensors_at(t, i);
        json_t *shape = json_array();
        for (int d = 0; d < x->shape.nd; d++)
            json_array_append_new(shape, json_integer((json_int_t)x->shape.d[d]));
        json_array_append_new(list, json_pack("{s:o, s:s, s:o}", "name", cli_json_text(tp_tensors_name(t, i)),
                                              "dtype", tp_dtype_name(x->dtype), "shape", shape));
    }
    return list;
}

static int print_json(const char *path, const tp_tensors *t, const char *hash)
{
    json_t *meta = json_object();

    for (size_t i = 0; i < META_KEYS; i++)
        if (tp_tensors_meta(t, meta_keys[i]) != NULL)
            json_object_set_new(meta, meta_keys[i], cli_json_text(tp_tensors_meta(t, meta_keys[i])));
    return cli_json_print(json_pack("{s:s, s:o, s:o, s:o, s:s}", "status", "ok", "file", cli_json_text(path),
                                    "tensors", tensors_json(t), "metadata", meta, "hash", hash));
}

int cli_inspect(const cli_args *a)
{
    tp_tensors *t = NULL;
    char hash[65];
    int code = 0;

    tp_status st = tp_tensors_load(&t, a->words[1]);
    if (st == TP_OK)
        st = tp_tensors_hash(t, hash);
    if (st != TP_OK)
        code = cli_fail(st);
    else if (a->json)
        code = print_json(a->words[1], t, hash);
    else
        print_text(t, hash);
    tp_tensors_free(t);
    return code;
}
