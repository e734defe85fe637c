/* bench.c - temper bench: the op benchmark as a table, or as JSON a line. */
#include "temper/bench.h"
#include "host/cli/cli.h"
#include <malloc.h>
#include <string.h>

/* *user becomes the exit code if there was no memory for a line. */
static void print_object(void *user, json_t *o)
{
    const int code = cli_json_print(o);

    if (code != 0)
        *(int *)user = code;
    fflush(stdout);
}

static json_t *time_json(const tp_bench_time *t)
{
    return json_pack("{s:i, s:o, s:o, s:o, s:o, s:o, s:o}", "runs", t->n, "median",
                     cli_json_number(t->median), "low", cli_json_number(t->low), "high",
                     cli_json_number(t->high), "bytes_per_second", cli_json_number(t->bytes_per_second),
                     "flops_per_second", cli_json_number(t->flops_per_second), "share",
                     cli_json_number(t->share));
}

static void head_json(void *user, const tp_bench_head *h)
{
    json_t *o = json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:s, s:i}", "kind", "head", "temper", h->version,
                          "library", h->library, "machine", cli_json_text(h->machine), "device",
                          cli_json_text(h->device), "device_note", cli_json_text(h->device_note), "precision",
                          h->precision, "threads", h->threads);

    json_object_set_new(o, "flush_bytes", cli_json_number(h->flush_bytes));
    json_object_set_new(o, "copy_bytes_per_second", cli_json_number(h->copy_bytes_per_second));
    json_object_set_new(o, "gemm_flops_per_second", cli_json_number(h->gemm_flops_per_second));
    print_object(user, o);
}

static void row_json(void *user, const tp_bench_row *r)
{
    static const char *const states[] = {"timed", "skipped", "wrong"};
    json_t *o = json_pack("{s:s, s:s, s:s, s:o, s:s, s:s, s:s}", "kind", "row", "op", r->op, "impl", r->impl,
                          "from", cli_json_text(r->from), "shape", r->shape, "attributes", r->attr, "state",
                          states[r->state]);

    if (r->state != TP_BENCH_TIMED)
        json_object_set_new(o, "why", cli_json_text(r->why));
    else {
        json_object_set_new(o, "error", cli_json_number(r->error));
        json_object_set_new(o, "tolerance", cli_json_number(r->tolerance));
        json_object_set_new(o, "flops", cli_json_number(r->flops));
        json_object_set_new(o, "bytes", cli_json_number(r->bytes));
        json_object_set_new(o, "hot", time_json(&r->hot));
        json_object_set_new(o, "cold", time_json(&r->cold));
    }
    print_object(user, o);
}

static void head_text(void *user, const tp_bench_head *h)
{
    (void)user;
    printf("temper %s, %s, %s\n", h->version, h->library, h->machine);
    cli_print_device(h->device, h->device_note);
    printf(", %d threads, %s\n", h->threads, h->precision);
    printf("roofline: copy %.1f GB/s, gemm %.1f GFLOP/s; %.0f MB streamed before a cold run\n",
           h->copy_bytes_per_second * 1e-9, h->gemm_flops_per_second * 1e-9, h->flush_bytes * 1e-6);
    printf("\n%-26s %-7s | %10s %21s %8s %8s %6s | %10s %21s %8s %8s %6s | %s\n", "op", "impl", "hot us",
           "(quartiles)", "GB/s", "GFLOP/s", "share", "cold us", "(quartiles)", "GB/s", "GFLOP/s", "share",
           "shape");
}

static void print_time(const tp_bench_time *t)
{
    char spread[48];

    snprintf(spread, sizeof(spread), "(%.2f..%.2f)", t->low * 1e6, t->high * 1e6);
    printf(" | %10.2f %21s %8.2f %8.2f %5.0f%%", t->median * 1e6, spread, t->bytes_per_second * 1e-9,
           t->flops_per_second * 1e-9, t->share * 100);
}

static void row_text(void *user, const tp_bench_row *r)
{
    (void)user;
    printf("%-26s %-7s", r->op, r->impl);
    if (r->state == TP_BENCH_TIMED) {
        print_time(&r->hot);
        print_time(&r->cold);
    } else
        printf(" | %s: %s", r->state == TP_BENCH_SKIPPED ? "skipped" : "WRONG", r->why);
    printf(" | %.60s%s%s%s [%s]\n", r->shape, strlen(r->shape) > 60 ? "..." : "", r->attr[0] ? " " : "",
           r->attr, r->from);
    fflush(stdout);
}

static int find_precision(const char *name, tp_precision *out)
{
    for (int i = 0; i < TP_PRECISIONS; i++)
        if (strcmp(name, tp_precision_name((tp_precision)i)) == 0) {
            *out = (tp_precision)i;
            return 1;
        }
    return 0;
}

int cli_bench(const cli_args *a)
{
    tp_bench_opts o = TP_BENCH_OPTS_INIT;
    int code = 0;

    o.device = a->device;
    o.n_ops = a->n_words - 1;
    o.ops = a->words + 1;
    o.shapes = a->shapes;
    o.head = a->json ? head_json : head_text;
    o.row = a->json ? row_json : row_text;
    o.user = &code;
    if (a->runs != 0)
        o.runs = a->runs;
    if (a->precision != NULL && !find_precision(a->precision, &o.precision))
        return cli_usage("--precision wants fp32, tf32 or bf16, not '%s'", a->precision);
    /* Large inputs and results come and go: their pages stay, which halves the time around the rows. */
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, -1);
    const tp_status st = tp_bench(&o);
    return st == TP_OK ? code : cli_fail(st);
}
