#include "host/cli/cli.h"
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile int stop_asked;

static void on_signal(int number)
{
    (void)number;
    stop_asked = 1;
}

static void print_part(FILE *f, const char *name, const tp_run_part *p)
{
    for (int i = 0; i < p->n; i++)
        fprintf(f, "%s%s%s %.5g", i == 0 ? "  " : ", ", i == 0 ? name : "", i == 0 ? " " : "", p->values[i]);
    (void)p;
}

static void on_start(void *user, const char *device)
{
    const cli_args *a = user;
    if (!a->quiet)
        fprintf(a->json ? stderr : stdout, "on %s\n", device);
}

/* One line a report; on a terminal a bar that is drawn over. */
static void on_report(void *user, const tp_run_report *r)
{
    const cli_args *a = user;
    FILE *f = a->json ? stderr : stdout;
    const double left = r->seconds / (double)(r->step > 0 ? r->step : 1) * (double)(r->total_steps - r->step);

    if (a->quiet)
        return;
    if (isatty(fileno(f))) {
        char bar[31] = "..............................";
        memset(bar, '#', (size_t)(30 * r->step / r->total_steps));
        fprintf(f, "\r[%s] %3.0f%%  loss %.5g  %.0f samples/s  %.0f s left ", bar,
                100.0 * (double)r->step / (double)r->total_steps, r->loss, r->samples_per_second, left);
        if (r->step == r->total_steps)
            fputc('\n', f);
    } else {
        fprintf(f, "step %lld/%lld  lr %.4g  loss %.5g  %.0f samples/s", (long long)r->step,
                (long long)r->total_steps, r->lr, r->loss, r->samples_per_second);
        for (int i = 0; i < r->validation.n; i++)
            fprintf(f, "  validation %s %.5g", r->validation.names[i], r->validation.values[i]);
        fputc('\n', f);
    }
    fflush(f);
}

static json_t *part_json(const tp_run_part *p)
{
    json_t *o = json_object();
    for (int i = 0; i < p->n; i++)
        json_object_set_new(o, p->names[i], isfinite(p->values[i]) ? json_real(p->values[i]) : json_null());
    return o;
}

static void print_json(const cli_args *a, const tp_run_result *r)
{
    json_t *o = json_pack("{s:s, s:s, s:s, s:I, s:f, s:f, s:s, s:{s:o, s:o}}", "status",
                          r->already_done ? "already done" : "ok", "run", a->out != NULL ? a->out : "",
                          "device", r->device, "steps", (json_int_t)r->steps, "seconds", r->seconds,
                          "samples_per_second", r->samples_per_second, "weights_hash", r->weights_hash,
                          "metrics", "validation", part_json(&r->validation), "test", part_json(&r->test));
    char *line = o != NULL ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;

    if (line != NULL)
        puts(line);
    free(line);
    json_decref(o);
}

static void print_text(const cli_args *a, const tp_run_result *r)
{
    if (a->quiet)
        return;
    if (r->already_done)
        printf("already done: step %lld was the last, nothing was trained\n", (long long)r->steps);
    else
        printf("%lld steps in %.2f s, %.0f samples/s on %s\n", (long long)r->steps, r->seconds,
               r->samples_per_second, r->device);
    if (r->validation.n > 0)
        print_part(stdout, "validation: loss", &r->validation);
    if (r->validation.n > 0)
        fputc('\n', stdout);
    for (int i = 0; i < r->test.n; i++)
        printf("  test %s %.6g\n", r->test.names[i], r->test.values[i]);
    printf("  weights %s\n", r->weights_hash);
    if (a->out != NULL)
        printf("  model %s/model.safetensors\n", a->out);
}

int cli_train(const cli_args *a)
{
    tp_run_opts o = TP_RUN_OPTS_INIT;
    char *plan = NULL;
    const struct sigaction act = {.sa_handler = on_signal};

    if (a->n_words != 2)
        return cli_usage("train wants one recipe");
    tp_run_result *result = calloc(1, sizeof(*result));
    tp_recipe *recipe = calloc(1, sizeof(*recipe));
    if (result == NULL || recipe == NULL) {
        free(result);
        free(recipe);
        return cli_fail(tp_error_set(TP_ENOMEM, __FILE__, __LINE__, "no memory for the recipe"));
    }
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGINT, &act, NULL);
    tp_status st = tp_recipe_read(recipe, a->words[1], a->n_sets, a->sets);
    if (st == TP_OK) {
        o.data = a->data;
        o.out = a->out;
        o.device = a->device;
        o.resume = a->resume;
        o.stop = &stop_asked;
        o.start = on_start;
        o.report = on_report;
        o.user = (void *)(uintptr_t)a;
        o.plan_text = a->dump_plan ? &plan : NULL;
        st = tp_run_train(recipe, &o, result);
    }
    if (plan != NULL)
        fputs(plan, a->json ? stderr : stdout);
    free(plan);
    if (st == TP_OK && a->json)
        print_json(a, result);
    else if (st == TP_OK)
        print_text(a, result);
    tp_recipe_clear(recipe);
    free(recipe);
    free(result);
    return st == TP_OK ? 0 : cli_fail(st);
}
