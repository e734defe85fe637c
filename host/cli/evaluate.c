#include "host/cli/cli.h"
#include "temper/safetensors.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static tp_evaluate_opts options_of(const cli_args *a)
{
    tp_evaluate_opts o = TP_EVALUATE_OPTS_INIT;
    o.data = a->data;
    o.device = a->device;
    o.group = a->group;
    o.time = a->time;
    o.from = a->from;
    o.to = a->to;
    o.n_metrics = a->n_metrics;
    o.metrics = a->metrics;
    return o;
}

static void print_scores(const cli_args *a, const tp_run_part *p, int64_t rows)
{
    if (!a->json) {
        printf("%lld samples\n", (long long)rows);
        for (int i = 0; i < p->n; i++)
            printf("  %-18s %.6g\n", p->names[i], p->values[i]);
        return;
    }
    json_t *metrics = json_object();
    for (int i = 0; i < p->n; i++)
        json_object_set_new(metrics, p->names[i],
                            isfinite(p->values[i]) ? json_real(p->values[i]) : json_null());
    json_t *o = json_pack("{s:s, s:s, s:I, s:o}", "status", "ok", "model", a->words[1], "samples",
                          (json_int_t)rows, "metrics", metrics);
    char *line = o != NULL ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    if (line != NULL)
        puts(line);
    free(line);
    json_decref(o);
}

int cli_evaluate(const cli_args *a)
{
    tp_evaluate_opts o = options_of(a);
    tp_run_part scores;
    int64_t rows = 0;

    if (a->n_words != 2 || a->data == NULL)
        return cli_usage("evaluate wants one model and --data");
    if (a->time != NULL && !(a->from < a->to))
        return cli_usage("--time wants --from and a later --to");
    o.rows = &rows;
    const tp_status st = tp_run_evaluate(a->words[1], &o, &scores);
    if (st != TP_OK)
        return cli_fail(st);
    print_scores(a, &scores, rows);
    return 0;
}

int cli_predict(const cli_args *a)
{
    tp_evaluate_opts o = options_of(a);
    tp_run_part scores;
    int64_t rows = 0;
    float *outputs = NULL;

    if (a->n_words != 2 || a->data == NULL)
        return cli_usage("predict wants one model and --data");
    o.rows = &rows;
    o.outputs = &outputs;
    const tp_status st = tp_run_evaluate(a->words[1], &o, &scores);
    if (st != TP_OK)
        return cli_fail(st);
    tp_device *dev = NULL;
    tp_model *m = NULL;
    int64_t width = 0;
    if (tp_device_open(&dev, a->device) == TP_OK && tp_model_load(&m, dev, a->words[1], NULL) == TP_OK)
        width = tp_model_outputs(m);
    tp_model_free(m);
    tp_device_close(dev);
    FILE *f = a->out == NULL || strcmp(a->out, "-") == 0 ? stdout : fopen(a->out, "w");
    if (f == NULL) {
        fprintf(stderr, "temper: %s cannot be created\n", a->out);
        tp_outputs_free(outputs);
        return tp_status_exit_code(TP_ECREATE);
    }
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < width; k++)
            fprintf(f, "%.9g%c", (double)outputs[i * width + k], k + 1 < width ? ',' : '\n');
    const int failed = ferror(f) != 0 || (f != stdout && fclose(f) != 0) || fflush(stdout) != 0;
    tp_outputs_free(outputs);
    return failed ? tp_status_exit_code(TP_EIO) : 0;
}

int cli_inspect(const cli_args *a)
{
    tp_tensors *t = NULL;
    char shape[TP_SHAPE_TEXT_SIZE], hash[65];

    if (a->n_words != 2)
        return cli_usage("inspect wants one file");
    tp_status st = tp_tensors_load(&t, a->words[1]);
    if (st == TP_OK)
        st = tp_tensors_hash(t, hash);
    if (st != TP_OK)
        return cli_fail(st);
    for (int i = 0; i < tp_tensors_count(t); i++) {
        const tp_tensor *x = tp_tensors_at(t, i);
        printf("%-40s %-9s %s\n", tp_tensors_name(t, i), tp_dtype_name(x->dtype),
               tp_shape_text(x->shape, shape, sizeof(shape)));
    }
    static const char *const keys[] = {"temper.step", "temper.model", "temper.layers"};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (tp_tensors_meta(t, keys[i]) != NULL)
            printf("%s: %s\n", keys[i], tp_tensors_meta(t, keys[i]));
    printf("hash %s\n", hash);
    tp_tensors_free(t);
    return 0;
}

int cli_devices(const cli_args *a)
{
    tp_device *dev = NULL;
    json_t *list = json_array();
    static const char *const kinds[] = {"cpu", "cuda"};

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        const tp_status st = tp_device_open(&dev, kinds[i]);
        const char *text = st == TP_OK ? tp_device_text(dev) : tp_last_error();
        if (a->json)
            json_array_append_new(list, json_pack("{s:s, s:b, s:s}", "device", kinds[i], "available",
                                                  st == TP_OK, "text", text));
        else
            printf("%-5s %s\n", kinds[i], st == TP_OK ? text : tp_last_error());
        tp_device_close(dev);
        dev = NULL;
    }
    char *line = a->json ? json_dumps(list, JSON_COMPACT) : NULL;
    if (line != NULL)
        puts(line);
    free(line);
    json_decref(list);
    return 0;
}

int cli_help(const cli_args *a)
{
    char *text = NULL;

    if (a->n_words > 1 && strcmp(a->words[1], "recipe") == 0) {
        const tp_status st = tp_recipe_help(&text);
        if (st != TP_OK)
            return cli_fail(st);
        fputs(text, stdout);
        free(text);
        return 0;
    }
    printf("usage: temper COMMAND ...\n\n");
    for (const cli_command *c = cli_commands; c->name != NULL; c++)
        if (a->n_words < 2 || strcmp(a->words[1], c->name) == 0)
            printf("  temper %s %s\n      %s\n", c->name, c->usage, c->help);
    printf("\noptions: --data FILE  --out PATH  --device auto|cpu|cuda[:N]  --set KEY=VALUE  --json  "
           "--quiet\n         train: --resume  --dump-plan\n"
           "topics: recipe\n");
    return 0;
}
