/* run.c - a recipe carried out: open the data, build the model, train, report, save, finish. */
#include "host/core/clock.h"
#include "host/core/mem.h"
#include "host/model/filters.h"
#include "host/train/run_parts.h"
#include "temper/plan.h"
#include "temper/safetensors.h"
#include <math.h>
#include <string.h>
#include <unistd.h>

static double rate_at(const tp_run *u, int64_t step)
{
    return u->r->lr * u->plateau.scale * tp_schedule_factor(&u->r->schedule, step, u->total, u->per_epoch);
}

static int higher_is_better(const char *metric)
{
    const tp_metric *m = tp_metric_find(metric);
    return m != NULL && m->higher_is_better;
}

/* What the validation metrics of a report change: the best model, the learning rate, whether to go on. */
static void heed(tp_run *u, const tp_run_report *rep, int *finished)
{
    double value = 0.0;

    if (tp_run_find_score(&rep->validation, u->r->train.best, &value)) {
        tp_early_stop_update(&u->early, &u->best, rep->step, value);
        *finished |= tp_early_stop_reached(&u->early, &u->best);
    }
    if (u->r->schedule.kind == TP_SCHEDULE_REDUCE_ON_PLATEAU &&
        tp_run_find_score(&rep->validation, u->r->plateau_metric, &value)) {
        tp_plateau p = u->r->plateau;
        p.higher_is_better = higher_is_better(u->r->plateau_metric);
        const double before = u->plateau.scale;
        if (tp_plateau_update(&p, &u->plateau, value) < before)
            tp_run_note(u, "step %lld: %s has not improved, the learning rate is now %g",
                        (long long)rep->step, u->r->plateau_metric, u->r->lr * u->plateau.scale);
    }
}

typedef struct progress {
    int64_t step, since, applied; /* since the last report: steps, and those that changed weights */
    double loss, start, last_time, norm;
    int bad;
    int64_t launches, length; /* so far; steps of the next one */
    double step_seconds;
} progress;

static tp_status report(tp_run *u, progress *p, int *finished)
{
    tp_run_report rep = {.step = p->step,
                         .total_steps = u->total,
                         .epoch = p->step / u->per_epoch,
                         .lr = rate_at(u, p->step - 1),
                         .loss = p->applied > 0 ? p->loss / (double)p->applied : (double)NAN,
                         .grad_norm = p->norm,
                         .seconds = tp_seconds() - p->start};
    const double spent = tp_seconds() - p->last_time;

    rep.samples_per_second = spent > 0.0 ? (double)(p->since * u->r->train.batch) / spent : 0.0;
    TP_TRY(tp_run_score(u, TP_VALIDATION, &rep.validation));
    heed(u, &rep, finished);
    tp_run_log_report(u, &rep);
    if (u->o->report != NULL)
        u->o->report(u->o->user, &rep);
    p->loss = 0.0;
    p->since = p->applied = 0;
    p->last_time = tp_seconds();
    return TP_OK;
}

/* What the steps of one launch have left. */
static tp_status take(tp_run *u, progress *p, const tp_step_result *results, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        p->step++;
        p->since++;
        p->norm = results[i].grad_norm;
        p->bad = results[i].applied ? 0 : p->bad + 1;
        p->applied += results[i].applied;
        p->loss += results[i].applied ? results[i].loss : 0.0;
        TP_CHECK(p->bad < u->r->train.max_bad_steps, TP_EDIVERGED,
                 "training diverged: %d steps in a row up to step %lld had a loss or gradient that is not "
                 "finite (train.max_bad_steps)",
                 p->bad, (long long)p->step);
    }
    return TP_OK;
}

static int stop_asked(const tp_run *u)
{
    return u->o->stop != NULL && *u->o->stop;
}

/* Steps of one launch: what takes about 5 ms, by the time of the last one. */
static int64_t chosen_length(const tp_run *u, const progress *p)
{
    const double want = p->step_seconds > 0.0 ? 5e-3 / p->step_seconds : 1.0;
    if (u->r->train.steps_per_launch > 0)
        return u->r->train.steps_per_launch;
    return want < 1.0 ? 1 : (want > TP_MAX_LAUNCH ? TP_MAX_LAUNCH : (int64_t)want);
}

static tp_status collect(tp_run *u, progress *p, int64_t n)
{
    tp_step_result results[TP_MAX_LAUNCH];

    TP_TRY(tp_trainer_collect(u->trainer, results));
    return take(u, p, results, n);
}

/* Steps up to `until`, or to where a stop is asked for; while one launch runs, the next is on its way. The
 * length is settled by the third launch: the first compiles and warms up, the second is timed. */
static tp_status run_until(tp_run *u, progress *p, int64_t until)
{
    double rates[TP_MAX_LAUNCH];
    int64_t at = p->step, pending = 0;

    while (p->step < until) {
        int64_t n = 0;
        if (at < until && !stop_asked(u)) {
            const double start = tp_seconds();
            n = p->launches < 2 ? 1 : p->length;
            n = n < until - at ? n : until - at;
            for (int64_t i = 0; i < n; i++)
                rates[i] = rate_at(u, at + i);
            TP_TRY(tp_trainer_launch(u->trainer, at, n, rates));
            at += n;
            if (++p->launches <= 2) {
                TP_TRY(collect(u, p, n));
                p->step_seconds = tp_seconds() - start;
                p->length = chosen_length(u, p);
                continue;
            }
        }
        if (pending > 0)
            TP_TRY(collect(u, p, pending));
        else if (n == 0)
            return TP_OK;
        pending = n;
    }
    return TP_OK;
}

static int64_t next_multiple(int64_t step, int64_t of)
{
    return (step / of + 1) * of;
}

static int64_t smallest(int64_t a, int64_t b, int64_t c)
{
    const int64_t ab = a < b ? a : b;
    return ab < c ? ab : c;
}

static tp_status train(tp_run *u, int64_t first)
{
    progress p = {.step = first, .start = tp_seconds()};
    int finished = 0;

    p.last_time = p.start;
    u->saved = first;
    while (p.step < u->total && !finished) {
        TP_TRY(run_until(u, &p,
                         smallest(u->total, next_multiple(p.step, u->report_every),
                                  next_multiple(p.step, u->save_every))));
        const int last = p.step == u->total;
        if (p.step % u->report_every == 0 || last)
            TP_TRY(report(u, &p, &finished));
        const int stop = stop_asked(u) && !last;
        if (p.step % u->save_every == 0 || last || finished || stop || (double)p.step == u->best.best_step) {
            if (p.bad == 0)
                TP_TRY(tp_run_save(u, p.step));
        }
        if (stop)
            TP_TRY(tp_run_settle(u));
        TP_CHECK(!stop, TP_ESTOPPED,
                 "stopped at step %lld of %lld; checkpoint of step %lld is good: go on with --resume",
                 (long long)p.step, (long long)u->total, (long long)u->saved);
    }
    TP_TRY(tp_run_settle(u));
    u->result->steps = p.step;
    u->result->samples = (p.step - first) * u->r->train.batch;
    u->result->seconds = tp_seconds() - p.start;
    u->result->samples_per_second =
        u->result->seconds > 0.0 ? (double)u->result->samples / u->result->seconds : 0.0;
    return TP_OK;
}

/* The averaged weights become the model's own. */
static tp_status adopt_ema(tp_run *u)
{
    for (int i = 0; i < tp_trainer_n_states(u->trainer); i++) {
        const tp_state_tensor *s = tp_trainer_state(u->trainer, i);
        if (strncmp(s->name, "ema.", 4) != 0)
            continue;
        for (int k = 0; k < tp_model_n_params(u->model); k++) {
            const tp_param *p = tp_model_param(u->model, k);
            if (strcmp(p->name, s->name + 4) == 0)
                TP_TRY(tp_device_enqueue_copy(u->dev, TP_QUEUE_RUN, p->tensor.data, s->tensor.data,
                                              tp_tensor_bytes(&p->tensor), TP_ON_DEVICE));
        }
    }
    return TP_OK;
}

static tp_status hash_weights(tp_run *u)
{
    tp_tensors *t = NULL;

    TP_TRY(tp_tensors_new(&t));
    tp_status st = TP_OK;
    for (int i = 0; i < tp_model_n_params(u->model) && st == TP_OK; i++) {
        const tp_param *p = tp_model_param(u->model, i);
        void *dst = NULL;
        st = tp_tensors_add(t, p->name, p->tensor.dtype, p->shape, &dst);
        if (st == TP_OK)
            st = tp_filters_download(u->dev, &p->tensor, p->shape, p->channels_last, dst);
    }
    if (st == TP_OK)
        st = tp_tensors_hash(t, u->result->weights_hash);
    tp_tensors_free(t);
    return st;
}

static tp_status finish(tp_run *u)
{
    char path[TP_RUN_PATH];
    int64_t step;

    if (u->best.best_step >= 0.0 && u->best.best_step != (double)u->result->steps && u->o->out != NULL)
        TP_TRY(tp_run_load(u, (int64_t)u->best.best_step, &step));
    TP_TRY(tp_run_score(u, TP_VALIDATION, &u->result->validation));
    TP_TRY(tp_run_score(u, TP_TEST, &u->result->test));
    TP_TRY(adopt_ema(u));
    TP_TRY(hash_weights(u));
    if (u->o->out == NULL)
        return TP_OK;
    TP_TRY(tp_run_path(u, path, "model.safetensors", 0));
    TP_TRY(tp_model_save(u->model, u->dev, u->r->data.target, path));
    return tp_run_write_manifest(u);
}

static tp_status prepare(tp_run *u)
{
    const tp_recipe *r = u->r;
    int64_t most = 0;

    TP_TRY(tp_device_open(&u->dev, u->o->device));
    u->precision = tp_device_kind_of(u->dev) == TP_CPU
                       ? TP_PRECISION_FP32
                       : (r->train.precision < 0 ? TP_PRECISION_TF32 : (tp_precision)r->train.precision);
    TP_TRY(tp_run_open_data(u));
    TP_TRY(tp_run_make_model(u));
    TP_TRY(tp_run_check_metrics(u));
    TP_TRY(tp_run_make_trainer(u));
    TP_TRY(tp_run_open_dir(u));
    if (u->o->out != NULL)
        TP_TRY(tp_snapshot_new(&u->saving.snapshot, u->trainer));
    for (int p = 0; p < TP_PARTS; p++)
        if (tp_data_part_rows(u->data, (tp_part)p) > most)
            most = tp_data_part_rows(u->data, (tp_part)p);
    TP_TRY(tp_alloc(&u->outputs, (size_t)(most * tp_model_outputs(u->model)), sizeof(float), "outputs"));
    u->per_epoch = tp_trainer_steps_per_epoch(u->trainer);
    u->total = u->per_epoch * r->train.epochs;
    u->report_every = r->train.report > 0 ? r->train.report : u->per_epoch;
    u->save_every = r->train.save > 0 ? r->train.save : u->per_epoch;
    u->early = (tp_early_stop){higher_is_better(r->train.best), r->train.patience, r->train.min_delta};
    u->best = tp_early_stop_start();
    tp_plateau plateau = r->plateau;
    plateau.higher_is_better = higher_is_better(r->plateau_metric);
    u->plateau = tp_plateau_start(&plateau);
    snprintf(u->result->device, sizeof(u->result->device), "%s", tp_device_text(u->dev));
    snprintf(u->result->precision, sizeof(u->result->precision), "%s", tp_precision_name(u->precision));
    snprintf(u->result->data_hash, sizeof(u->result->data_hash), "%s", tp_data_hash(u->data));
    return TP_OK;
}

static void announce(const tp_run *u)
{
    char line[1024];
    const char *note = tp_device_note(u->dev);

    snprintf(line, sizeof(line), "%s%s%s%s; %s", tp_device_text(u->dev), note[0] != '\0' ? " (" : "", note,
             note[0] != '\0' ? ")" : "", u->result->precision);
    if (u->o->start != NULL)
        u->o->start(u->o->user, line);
}

static tp_status carry_out(tp_run *u)
{
    int64_t first = 0;

    TP_TRY(prepare(u));
    if (u->o->resume)
        TP_TRY(tp_run_load(u, -1, &first));
    u->result->already_done =
        u->o->resume && (first >= u->total || tp_early_stop_reached(&u->early, &u->best));
    u->result->steps = first;
    tp_run_note(u, "from step %lld of %lld on %s in %s, data %s", (long long)first, (long long)u->total,
                u->result->device, u->result->precision, u->result->data_hash);
    tp_run_note(u, "%s; %lld micro-batches a step",
                tp_data_resident(u->data) ? "data resident" : "data streamed", (long long)u->accumulate);
    if (!u->result->already_done) {
        announce(u);
        TP_TRY(train(u, first));
    }
    if (u->o->plan_text != NULL)
        TP_TRY(tp_trainer_plan_text(u->trainer, u->o->plan_text));
    TP_TRY(finish(u));
    tp_run_note(u, "done: %lld steps, weights %s", (long long)u->result->steps, u->result->weights_hash);
    return TP_OK;
}

tp_status tp_run_train(const tp_recipe *r, const tp_run_opts *opts, tp_run_result *result)
{
    tp_run u = {.r = r, .o = opts, .result = result, .lock = -1};

    *result = (tp_run_result){.steps = 0};
    const tp_status st = carry_out(&u);
    tp_run_end_saving(&u);
    if (st != TP_OK)
        tp_run_note(&u, "%s", tp_last_error());
    tp_run_close(&u);
    return st;
}

void tp_run_close(tp_run *u)
{
    tp_snapshot_free(u->saving.snapshot);
    tp_trainer_free(u->trainer);
    tp_model_free(u->model);
    tp_data_free(u->data);
    tp_device_close(u->dev);
    tp_free(u->class_weight);
    tp_free(u->outputs);
    if (u->metrics != NULL)
        fclose(u->metrics);
    if (u->log != NULL)
        fclose(u->log);
    if (u->lock >= 0)
        close(u->lock);
}
