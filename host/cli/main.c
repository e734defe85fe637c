#include "host/cli/cli.h"
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

const cli_command cli_commands[] = {
    {"train", "RECIPE [--data FILE] [--out DIR] [--resume]", "trains a model as the recipe says", cli_train},
    {"evaluate",
     "MODEL --data FILE [--group G | --time NAME --from T --to T] [--metric M]... [--weight NAME]\n"
     "      [--by-class] [--slice NAME]",
     "measures a model on data", cli_evaluate},
    {"predict", "MODEL --data FILE [--out FILE]", "writes the model's outputs as CSV", cli_predict},
    {"inspect", "FILE", "lists what a model, a checkpoint or any safetensors file holds", cli_inspect},
    {"bench", "[OP]... [--device D] [--precision P] [--shapes FILE] [--runs N] [--json]",
     "times every implementation of the ops after checking what it computes", cli_bench},
    {"devices", "", "lists the devices a run can use", cli_devices},
    {"help", "[recipe | COMMAND]", "explains a topic", cli_help},
    {NULL, NULL, NULL, NULL},
};

int cli_fail(tp_status st)
{
    fprintf(stderr, "temper: %s\n", tp_last_error());
    return tp_status_exit_code(st);
}

int cli_usage(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "temper: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, " (see temper help)\n");
    va_end(args);
    return TP_EXIT_USAGE;
}

static void log_line(void *user, tp_log_level level, const char *line)
{
    (void)user;
    if (level <= TP_LOG_WARNING)
        fprintf(stderr, "temper: %s\n", line);
}

/* A date as days since 1970-01-01, or a number; 0 if it is neither. */
static int parse_time(const char *text, double *out)
{
    struct tm t = {0};
    char *end = strptime(text, "%Y-%m-%d", &t);

    if (end != NULL && *end == '\0') {
        *out = (double)timegm(&t) / 86400;
        return 1;
    }
    *out = strtod(text, &end);
    return end != text && *end == '\0';
}

enum {
    OPT_DATA = 256,
    OPT_OUT,
    OPT_DEVICE,
    OPT_SET,
    OPT_JSON,
    OPT_QUIET,
    OPT_RESUME,
    OPT_TIME,
    OPT_FROM,
    OPT_TO,
    OPT_GROUP,
    OPT_METRIC,
    OPT_WEIGHT,
    OPT_SLICE,
    OPT_BY_CLASS,
    OPT_DUMP_PLAN,
    OPT_SHAPES,
    OPT_RUNS,
    OPT_PRECISION,
    OPT_HELP
};

static const struct option options[] = {{"data", required_argument, NULL, OPT_DATA},
                                        {"out", required_argument, NULL, OPT_OUT},
                                        {"device", required_argument, NULL, OPT_DEVICE},
                                        {"set", required_argument, NULL, OPT_SET},
                                        {"json", no_argument, NULL, OPT_JSON},
                                        {"quiet", no_argument, NULL, OPT_QUIET},
                                        {"resume", no_argument, NULL, OPT_RESUME},
                                        {"time", required_argument, NULL, OPT_TIME},
                                        {"from", required_argument, NULL, OPT_FROM},
                                        {"to", required_argument, NULL, OPT_TO},
                                        {"group", required_argument, NULL, OPT_GROUP},
                                        {"metric", required_argument, NULL, OPT_METRIC},
                                        {"weight", required_argument, NULL, OPT_WEIGHT},
                                        {"slice", required_argument, NULL, OPT_SLICE},
                                        {"by-class", no_argument, NULL, OPT_BY_CLASS},
                                        {"dump-plan", no_argument, NULL, OPT_DUMP_PLAN},
                                        {"shapes", required_argument, NULL, OPT_SHAPES},
                                        {"runs", required_argument, NULL, OPT_RUNS},
                                        {"precision", required_argument, NULL, OPT_PRECISION},
                                        {"help", no_argument, NULL, OPT_HELP},
                                        {NULL, 0, NULL, 0}};

/* 0, or the exit code; *help is set by --help. */
static int parse(int argc, char **argv, cli_args *a, int *help)
{
    char *end;
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
        switch (c) {
        case OPT_DATA:
            a->data = optarg;
            break;
        case OPT_OUT:
            a->out = optarg;
            break;
        case OPT_DEVICE:
            a->device = optarg;
            break;
        case OPT_SET:
            if (a->n_sets == 256)
                return cli_usage("more than 256 --set");
            a->sets[a->n_sets++] = optarg;
            break;
        case OPT_JSON:
            a->json = 1;
            break;
        case OPT_QUIET:
            a->quiet = 1;
            break;
        case OPT_RESUME:
            a->resume = 1;
            break;
        case OPT_TIME:
            a->time = optarg;
            break;
        case OPT_GROUP:
            a->group = optarg;
            break;
        case OPT_FROM:
        case OPT_TO:
            if (!parse_time(optarg, c == OPT_FROM ? &a->from : &a->to))
                return cli_usage("'%s' is no date (2001-12-31) or number", optarg);
            break;
        case OPT_METRIC:
            if (a->n_metrics == TP_RECIPE_METRICS)
                return cli_usage("more than %d --metric", TP_RECIPE_METRICS);
            a->metrics[a->n_metrics++] = optarg;
            break;
        case OPT_WEIGHT:
            a->weight = optarg;
            break;
        case OPT_SLICE:
            a->slice = optarg;
            break;
        case OPT_BY_CLASS:
            a->by_class = 1;
            break;
        case OPT_DUMP_PLAN:
            a->dump_plan = 1;
            break;
        case OPT_SHAPES:
            a->shapes = optarg;
            break;
        case OPT_PRECISION:
            a->precision = optarg;
            break;
        case OPT_RUNS:
            a->runs = (int)strtol(optarg, &end, 10);
            if (*end != '\0' || a->runs <= 0)
                return cli_usage("--runs wants a whole number above 0, not '%s'", optarg);
            break;
        case OPT_HELP:
            *help = 1;
            break;
        default:
            return TP_EXIT_USAGE; /* getopt has said why */
        }
    for (; optind < argc; optind++) {
        if (a->n_words == 16)
            return cli_usage("too many arguments");
        a->words[a->n_words++] = argv[optind];
    }
    return 0;
}

int main(int argc, char **argv)
{
    cli_args a = {.device = "auto"};
    int help = 0;

    tp_log_set(log_line, NULL);
    const int bad = parse(argc, argv, &a, &help);
    if (bad != 0)
        return bad;
    if (a.n_words == 0 && !help)
        return cli_usage("no command");
    const char *name = a.n_words > 0 ? a.words[0] : "help";
    if (help) { /* "temper train --help" is "temper help train" */
        a.words[1] = name;
        a.n_words = strcmp(name, "help") == 0 ? 1 : 2;
        name = "help";
    }
    for (const cli_command *c = cli_commands; c->name != NULL; c++)
        if (strcmp(c->name, name) == 0)
            return c->run(&a);
    return cli_usage("no command '%s'", name);
}
