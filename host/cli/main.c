/* main.c - the commands, and what is the same for all of them. */
#include "host/cli/cli.h"
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

#define BIT(option) (1u << CLI_##option)
#define ROWS        (BIT(DEVICE) | BIT(GROUP) | BIT(TIME) | BIT(FROM) | BIT(TO))

const cli_command cli_commands[] = {
    {"train", "RECIPE", "trains a model as the recipe says", "one recipe", 1, 1, 0,
     BIT(DATA) | BIT(OUT) | BIT(DEVICE) | BIT(SET) | BIT(RESUME) | BIT(DUMP_PLAN) | BIT(JSON) | BIT(QUIET),
     cli_train},
    {"evaluate", "MODEL",
     "measures a model on data: on all rows, those of --group, or those with --from <= --time < --to",
     "one model", 1, 1, BIT(DATA), ROWS | BIT(METRIC) | BIT(WEIGHT) | BIT(SLICE) | BIT(BY_CLASS) | BIT(JSON),
     cli_evaluate},
    {"predict", "MODEL", "writes the model's outputs as CSV, for the rows that evaluate would take",
     "one model", 1, 1, BIT(DATA), BIT(OUT) | ROWS | BIT(JSON), cli_predict},
    {"inspect", "FILE", "lists what a model, a checkpoint or any safetensors file holds", "one file", 1, 1, 0,
     BIT(JSON), cli_inspect},
    {"bench", "[OP]...", "times every implementation of the ops after checking what it computes", "ops", 0,
     INT_MAX, 0, BIT(DEVICE) | BIT(SHAPES) | BIT(RUNS) | BIT(PRECISION) | BIT(JSON), cli_bench},
    {"devices", "", "lists the devices a run can use", "no argument", 0, 0, 0, BIT(JSON), cli_devices},
    {"help", "[recipe | COMMAND]", "explains a topic", "at most one topic", 0, 1, 0, 0, cli_help},
    {.name = NULL},
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

static const cli_command *find(const char *name)
{
    const cli_command *c = cli_commands;
    while (c->name != NULL && strcmp(c->name, name) != 0)
        c++;
    return c->name != NULL ? c : NULL;
}

int cli_help(const cli_args *a)
{
    const char *topic = a->n_words > 1 ? a->words[1] : NULL;
    char *text = NULL;

    if (topic != NULL && strcmp(topic, "recipe") == 0) {
        const tp_status st = tp_recipe_help(&text);
        if (st != TP_OK)
            return cli_fail(st);
        fputs(text, stdout);
        tp_text_free(text);
        return 0;
    }
    if (topic != NULL && find(topic) == NULL)
        return cli_usage("no topic '%s'", topic);
    printf("usage: temper COMMAND ...\n\n");
    for (const cli_command *c = cli_commands; c->name != NULL; c++)
        if (topic == NULL || strcmp(topic, c->name) == 0)
            cli_print_usage(c);
    printf("\n\"temper help recipe\" lists every key of a recipe.\n");
    return 0;
}

static int run(const cli_args *a)
{
    const char *topic[] = {"help", a->n_words > 0 ? a->words[0] : NULL};

    if (a->help) { /* "temper train --help" is "temper help train" */
        const int alone = topic[1] == NULL || strcmp(topic[1], "help") == 0;
        return cli_help(&(cli_args){.words = topic, .n_words = alone ? 1 : 2});
    }
    if (a->n_words == 0)
        return cli_usage("no command");
    const cli_command *c = find(a->words[0]);
    if (c == NULL)
        return cli_usage("no command '%s'", a->words[0]);
    const int bad = cli_check(c, a);
    return bad != 0 ? bad : c->run(a);
}

/* What was printed has to arrive, or 0 would be a lie. */
static int finish(int code)
{
    errno = 0;
    if ((fflush(stdout) == 0 && !ferror(stdout)) || code != 0)
        return code;
    return cli_fail(tp_error_set(TP_EIO, __FILE__, __LINE__, "standard output: %s",
                                 errno != 0 ? strerror(errno) : "not all of it could be written"));
}

int main(int argc, char **argv)
{
    cli_args a = {.device = "auto", .from = NAN, .to = NAN};

    tp_log_set(log_line, NULL);
    const int bad = cli_parse(argc, argv, &a);
    return bad != 0 ? bad : finish(run(&a));
}
