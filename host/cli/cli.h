/* cli.h - what the subcommands share. */
#ifndef TP_CLI_H
#define TP_CLI_H
#include "temper/run.h"

#define TP_EXIT_USAGE 64

/* Options every command takes, and those that some do. */
typedef struct cli_args {
    const char *data, *out, *device, *time, *group, *weight, *slice, *shapes, *precision;
    double from, to;
    int json, quiet, resume, dump_plan, by_class, runs;
    int n_sets, n_metrics, n_words;
    const char *sets[256], *metrics[TP_RECIPE_METRICS], *words[16];
} cli_args;

typedef struct cli_command {
    const char *name, *usage, *help;
    int (*run)(const cli_args *a);
} cli_command;

extern const cli_command cli_commands[]; /* ends with a NULL name */

int cli_train(const cli_args *a);
int cli_evaluate(const cli_args *a);
int cli_predict(const cli_args *a);
int cli_inspect(const cli_args *a);
int cli_devices(const cli_args *a);
int cli_bench(const cli_args *a);
int cli_help(const cli_args *a);

/* Prints "temper: line" on stderr and gives the status's exit code. */
int cli_fail(tp_status st);
int cli_usage(const char *format, ...) TP_PRINTF(1, 2);

#endif
