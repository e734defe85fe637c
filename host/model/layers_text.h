/* layers_text.h - a layer list as YAML, the form recipes and model files share. */
#ifndef TP_MODEL_LAYERS_TEXT_H
#define TP_MODEL_LAYERS_TEXT_H
#include "temper/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The children of root as a YAML list; free with tp_text_free. */
tp_status tp_layers_text(const tp_layer *root, char **out) TP_MUST_USE;

/* Reads such a list into the children of out; `file` is named in errors (TP_ERECIPE). */
tp_status tp_layers_parse(tp_layer *out, const char *text, const char *file) TP_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
