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
    o.weight = a->weight;
    o.slice = a->slice;
    o.by_class = a->by_class;
    return o;
}

static void print_classes(const tp_evaluation *e)
{
    printf("  %8s %10s %10s %10s %10s\n", "class", "precision", "recall", "f1", "support");
    for (int64_t k = 0; k < e->n_classes; k++) {
        const tp_class_score *c = &e->classes[k];
        printf("  %8lld %10.4f %10.4f %10.4f %10.6g\n", (long long)k, c->precision, c->recall, c->f1,
               c->support);
    }
}

static void print_slices(const cli_args *a, const tp_evaluation *e)
{
    const tp_slices *t = &e->slices;

    printf("  %12s %10s", a->slice, "support");
    for (int m = 0; m < t->n_metrics; m++)
        printf(" %12s", e->scores.names[m]);
    for (int64_t i = 0; i < t->n; i++) {
        printf("\n  %12lld %10lld", (long long)t->ids[i], (long long)t->support[i]);
        for (int m = 0; m < t->n_metrics; m++)
            printf(" %12.6g", t->values[i * t->n_metrics + m]);
    }
    putchar('\n');
}

static void print_text(const cli_args *a, const tp_evaluation *e)
{
    printf("%lld samples\n", (long long)e->rows);
    for (int i = 0; i < e->scores.n; i++)
        printf("  %-18s %.6g\n", e->scores.names[i], e->scores.values[i]);
    if (e->n_classes > 0)
        print_classes(e);
    if (e->slices.n > 0)
        print_slices(a, e);
}

static json_t *number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static json_t *classes_json(const tp_evaluation *e)
{
    json_t *list = json_array();
    for (int64_t k = 0; k < e->n_classes; k++) {
        const tp_class_score *c = &e->classes[k];
        json_array_append_new(list, json_pack("{s:I, s:o, s:o, s:o, s:o}", "class", (json_int_t)k,
                                              "precision", number(c->precision), "recall", number(c->recall),
                                              "f1", number(c->f1), "support", number(c->support)));
    }
    return list;
}

static json_t *slices_json(const tp_evaluation *e)
{
    const tp_slices *t = &e->slices;
    json_t *list = json_array();

    for (int64_t i = 0; i < t->n; i++) {
        json_t *o =
            json_pack("{s:I, s:I}", "slice", (json_int_t)t->ids[i], "support", (json_int_t)t->support[i]);
        for (int m = 0; m < t->n_metrics; m++)
            json_object_set_new(o, e->scores.names[m], number(t->values[i * t->n_metrics + m]));
        json_array_append_new(list, o);
    }
    return list;
}

static void print_json(const cli_args *a, const tp_evaluation *e)
{
    json_t *metrics = json_object();
    for (int i = 0; i < e->scores.n; i++)
        json_object_set_new(metrics, e->scores.names[i], number(e->scores.values[i]));
    json_t *o = json_pack("{s:s, s:s, s:I, s:o}", "status", "ok", "model", a->words[1], "samples",
                          (json_int_t)e->rows, "metrics", metrics);
    if (e->n_classes > 0)
        json_object_set_new(o, "classes", classes_json(e));
    if (e->slices.n > 0)
        json_object_set_new(o, "slices", slices_json(e));
    char *line = o != NULL ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    if (line != NULL)
        puts(line);
    free(line);
    json_decref(o);
}

int cli_evaluate(const cli_args *a)
{
    const tp_evaluate_opts o = options_of(a);
    tp_evaluation e;

    if (a->n_words != 2 || a->data == NULL)
        return cli_usage("evaluate wants one model and --data");
    if (a->time != NULL && !(a->from < a->to))
        return cli_usage("--time wants --from and a later --to");
    const tp_status st = tp_run_evaluate(a->words[1], &o, &e);
    if (st != TP_OK)
        return cli_fail(st);
    if (a->json)
        print_json(a, &e);
    else
        print_text(a, &e);
    tp_evaluation_clear(&e);
    return 0;
}

int cli_predict(const cli_args *a)
{
    const tp_evaluate_opts o = options_of(a);
    tp_evaluation e;

    if (a->n_words != 2 || a->data == NULL)
        return cli_usage("predict wants one model and --data");
    if (a->time != NULL && !(a->from < a->to))
        return cli_usage("--time wants --from and a later --to");
    const tp_status st = tp_run_predict(a->words[1], &o, &e);
    if (st != TP_OK)
        return cli_fail(st);
    FILE *f = a->out == NULL || strcmp(a->out, "-") == 0 ? stdout : fopen(a->out, "w");
    if (f == NULL) {
        fprintf(stderr, "temper: %s cannot be created\n", a->out);
        tp_evaluation_clear(&e);
        return tp_status_exit_code(TP_ECREATE);
    }
    for (int64_t i = 0; i < e.rows; i++)
        for (int64_t k = 0; k < e.width; k++)
            fprintf(f, "%.9g%c", (double)e.outputs[i * e.width + k], k + 1 < e.width ? ',' : '\n');
    tp_evaluation_clear(&e);
    const int failed = ferror(f) != 0 || (f != stdout && fclose(f) != 0) || fflush(stdout) != 0;
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
