/* train.c - temper train: a run, what it shows while it goes on, and how it is stopped. */
#include "host/cli/cli.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile int stop_asked;

static void on_signal(int number)
{
    (void)number;
    stop_asked = 1;
}

/* What is shown of a run under way. */
typedef struct show {
    const cli_args *a;
    const tp_recipe *recipe;
    FILE *f;
    int bar;           /* one stands on the last line, without its end */
    int64_t first;     /* the first report: step, 0 if there was none yet, */
    double first_time; /* and seconds */
} show;

static void end_bar(show *s)
{
    if (s->bar)
        fputc('\n', s->f);
    s->bar = 0;
}

static void on_start(void *user, const char *device)
{
    const show *s = user;
    if (!s->a->quiet)
        fprintf(s->f, "on %s\n", device);
}

/* By the steps since the first report of this process, validation between them included. */
static double seconds_left(show *s, const tp_run_report *r)
{
    double step_seconds;

    if (s->first > 0)
        step_seconds = (r->seconds - s->first_time) / (double)(r->step - s->first);
    else {
        step_seconds = (double)s->recipe->train.batch / r->samples_per_second;
        s->first = r->step;
        s->first_time = r->seconds;
    }
    return (double)(r->total_steps - r->step) * step_seconds;
}

/* One line a report; on a terminal a bar that is drawn over. */
static void on_report(void *user, const tp_run_report *r)
{
    show *s = user;

    if (s->a->quiet)
        return;
    if (isatty(fileno(s->f))) {
        char bar[31] = "..............................";
        memset(bar, '#', (size_t)(30 * r->step / r->total_steps));
        fprintf(s->f, "\r[%s] %3.0f%%  loss %.5g  %.0f samples/s  %.0f s left \x1b[K", bar,
                100.0 * (double)r->step / (double)r->total_steps, r->loss, r->samples_per_second,
                seconds_left(s, r));
        s->bar = 1;
    } else {
        fprintf(s->f, "step %lld/%lld  lr %.4g  loss %.5g  %.0f samples/s", (long long)r->step,
                (long long)r->total_steps, r->lr, r->loss, r->samples_per_second);
        for (int i = 0; i < r->validation.n; i++)
            fprintf(s->f, "  validation %s %.5g", r->validation.names[i], r->validation.values[i]);
        fputc('\n', s->f);
    }
    fflush(s->f);
}

static int print_json(const cli_args *a, const tp_run_result *r)
{
    return cli_json_print(
        json_pack("{s:s, s:o, s:o, s:o, s:I, s:o, s:o, s:s, s:{s:o, s:o}}", "status",
                  r->already_done ? "already done" : "ok", "run", cli_json_text(a->out != NULL ? a->out : ""),
                  "device", cli_json_text(r->device), "device_note", cli_json_text(r->device_note), "steps",
                  (json_int_t)r->steps, "seconds", cli_json_number(r->seconds), "samples_per_second",
                  cli_json_number(r->samples_per_second), "weights_hash", r->weights_hash, "metrics",
                  "validation", cli_json_part(&r->validation), "test", cli_json_part(&r->test)));
}

static void print_part(const char *name, const tp_run_part *p)
{
    for (int i = 0; i < p->n; i++)
        printf("  %s %s %.6g\n", name, p->names[i], p->values[i]);
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
    print_part("validation", &r->validation);
    print_part("test", &r->test);
    printf("  weights %s\n", r->weights_hash);
    if (a->out != NULL)
        printf("  model %s/model.safetensors\n", a->out);
}

static tp_status train(const cli_args *a, tp_recipe *recipe, tp_run_result *result)
{
    tp_run_opts o = TP_RUN_OPTS_INIT;
    show s = {.a = a, .recipe = recipe, .f = a->json ? stderr : stdout};
    char *plan = NULL;

    TP_TRY(tp_recipe_read(recipe, a->words[1], a->n_sets, a->sets));
    o.data = a->data;
    o.out = a->out;
    o.device = a->device;
    o.resume = a->resume;
    o.stop = &stop_asked;
    o.start = on_start;
    o.report = on_report;
    o.user = &s;
    o.plan_text = a->dump_plan ? &plan : NULL;
    const tp_status st = tp_run_train(recipe, &o, result);
    end_bar(&s);
    if (plan != NULL)
        fputs(plan, s.f);
    tp_text_free(plan);
    return st;
}

int cli_train(const cli_args *a)
{
    /* The first signal asks for a stop, a second one of the same kind ends the process. What is printed when
     * the first comes is printed on. */
    const struct sigaction act = {.sa_handler = on_signal, .sa_flags = (int)(SA_RESETHAND | SA_RESTART)};
    int code;

    if (a->resume && a->out == NULL)
        return cli_usage("--resume wants --out DIR, the run to go on with");
    tp_run_result *result = calloc(1, sizeof(*result));
    tp_recipe *recipe = calloc(1, sizeof(*recipe));
    if (result == NULL || recipe == NULL)
        code = cli_fail(tp_error_set(TP_ENOMEM, __FILE__, __LINE__, "no memory for the recipe"));
    else {
        sigaction(SIGTERM, &act, NULL);
        sigaction(SIGINT, &act, NULL);
        const tp_status st = train(a, recipe, result);
        code = st != TP_OK ? cli_fail(st) : 0;
        if (st == TP_OK && a->json)
            code = print_json(a, result);
        else if (st == TP_OK)
            print_text(a, result);
        tp_recipe_clear(recipe);
    }
    free(recipe);
    free(result);
    return code;
}
