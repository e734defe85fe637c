/* evaluate.c - temper evaluate and temper predict: a model on data. */
#include "host/cli/cli.h"
#include <errno.h>
#include <math.h>
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
    printf("%lld samples on ", (long long)e->rows);
    cli_print_device(e->device, e->device_note);
    putchar('\n');
    for (int i = 0; i < e->scores.n; i++)
        printf("  %-18s %.6g\n", e->scores.names[i], e->scores.values[i]);
    if (e->n_classes > 0)
        print_classes(e);
    if (e->slices.n > 0)
        print_slices(a, e);
}

static json_t *classes_json(const tp_evaluation *e)
{
    json_t *list = json_array();
    for (int64_t k = 0; k < e->n_classes; k++) {
        const tp_class_score *c = &e->classes[k];
        json_array_append_new(list, json_pack("{s:I, s:o, s:o, s:o, s:o}", "class", (json_int_t)k,
                                              "precision", cli_json_number(c->precision), "recall",
                                              cli_json_number(c->recall), "f1", cli_json_number(c->f1),
                                              "support", cli_json_number(c->support)));
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
            json_object_set_new(o, e->scores.names[m], cli_json_number(t->values[i * t->n_metrics + m]));
        json_array_append_new(list, o);
    }
    return list;
}

static int print_json(const cli_args *a, const tp_evaluation *e)
{
    json_t *o =
        json_pack("{s:s, s:o, s:o, s:o, s:I, s:o}", "status", "ok", "model", cli_json_text(a->words[1]),
                  "device", cli_json_text(e->device), "device_note", cli_json_text(e->device_note), "samples",
                  (json_int_t)e->rows, "metrics", cli_json_part(&e->scores));
    if (e->n_classes > 0)
        json_object_set_new(o, "classes", classes_json(e));
    if (e->slices.n > 0)
        json_object_set_new(o, "slices", slices_json(e));
    return cli_json_print(o);
}

/* 0, or the exit code after a line that says how the rows to take were chosen wrongly. */
static int check_rows(const cli_args *a)
{
    if (a->group != NULL && a->time != NULL)
        return cli_usage("--group and --time exclude each other");
    if (a->time == NULL && (!isnan(a->from) || !isnan(a->to)))
        return cli_usage("--from and --to want --time");
    if (a->time != NULL && !(a->from < a->to))
        return cli_usage("--time wants --from and a later --to");
    return 0;
}

int cli_evaluate(const cli_args *a)
{
    const tp_evaluate_opts o = options_of(a);
    tp_evaluation e;

    int code = check_rows(a);
    if (code != 0)
        return code;
    const tp_status st = tp_run_evaluate(a->words[1], &o, &e);
    if (st != TP_OK)
        return cli_fail(st);
    if (a->json)
        code = print_json(a, &e);
    else
        print_text(a, &e);
    tp_evaluation_clear(&e);
    return code;
}

static tp_status write_csv(const cli_output *out, const tp_evaluation *e)
{
    for (int64_t i = 0; i < e->rows; i++)
        for (int64_t k = 0; k < e->width; k++)
            TP_CHECK(fprintf(out->f, "%.9g%c", (double)e->outputs[i * e->width + k],
                             k + 1 < e->width ? ',' : '\n') > 0,
                     TP_EIO, "%s: writing: %s", out->path, strerror(errno));
    return TP_OK;
}

static int print_written(const cli_args *a, const tp_evaluation *e)
{
    return cli_json_print(
        json_pack("{s:s, s:o, s:o, s:o, s:I, s:I, s:o}", "status", "ok", "model", cli_json_text(a->words[1]),
                  "device", cli_json_text(e->device), "device_note", cli_json_text(e->device_note), "samples",
                  (json_int_t)e->rows, "outputs", (json_int_t)e->width, "out", cli_json_text(a->out)));
}

int cli_predict(const cli_args *a)
{
    const tp_evaluate_opts o = options_of(a);
    tp_evaluation e = {.rows = 0};
    cli_output out;

    int code = check_rows(a);
    if (code != 0)
        return code;
    if (a->json && (a->out == NULL || strcmp(a->out, "-") == 0))
        return cli_usage("predict --json wants --out FILE: the object has standard output for itself");
    tp_status st = cli_output_open(&out, a->out);
    if (st != TP_OK)
        return cli_fail(st);
    st = tp_run_predict(a->words[1], &o, &e);
    if (st == TP_OK)
        st = write_csv(&out, &e);
    st = cli_output_close(&out, st);
    if (st != TP_OK)
        code = cli_fail(st);
    else if (a->json)
        code = print_written(a, &e);
    tp_evaluation_clear(&e);
    return code;
}
