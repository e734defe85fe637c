/* recipe_schema.h - the one table of keys: what `temper help recipe` prints and what a recipe is checked
 * against. */
#ifndef TP_MODEL_RECIPE_SCHEMA_H
#define TP_MODEL_RECIPE_SCHEMA_H
#include "temper/recipe.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tp_key_type {
    TP_KEY_NUMBER,  /* double */
    TP_KEY_INTEGER, /* int64_t */
    TP_KEY_PAIR,    /* int64_t[2]: one number for both, or a list of two */
    TP_KEY_BOOL,    /* int */
    TP_KEY_TEXT,    /* char[max] */
    TP_KEY_CHOICE,  /* an enum */
    TP_KEY_INPUTS,
    TP_KEY_LAYERS,
    TP_KEY_HIDDEN,
    TP_KEY_METRICS,
    TP_KEY_RANGE /* [from, to] of part `min`, or its group or file */
} tp_key_type;

typedef struct tp_choice {
    const char *name;
    int value;
} tp_choice;

typedef struct tp_schema_row {
    const char *path; /* "train.batch"; '@' stands for an optimizer's name */
    tp_key_type type;
    size_t offset; /* in tp_recipe, tp_recipe_input or tp_layer */
    double min, max;
    const tp_choice *choices;
    const char *help;
} tp_schema_row;

/* Each ends with a NULL path. */
extern const tp_schema_row tp_schema[], tp_schema_input[], tp_schema_layer[];

/* Names by tp_optimizer_kind; NULL at the end. */
extern const char *const tp_schema_optimizers[];

/* Does a layer of this kind use this option of tp_schema_layer? */
int tp_schema_layer_takes(tp_layer_kind kind, const char *option);

void tp_recipe_defaults(tp_recipe *r);
void tp_recipe_optimizer_defaults(tp_recipe *r, tp_optimizer_kind kind);

#ifdef __cplusplus
}
#endif
#endif
