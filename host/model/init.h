/* init.h - first weights: PyTorch's defaults and the named schemes, drawn from Philox. */
#ifndef TP_MODEL_INIT_H
#define TP_MODEL_INIT_H
#include "temper/model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tp_fill { TP_FILL_CONSTANT = 0, TP_FILL_UNIFORM, TP_FILL_NORMAL } tp_fill;

/* constant: a; uniform: [a, b); normal: mean a, standard deviation b. */
typedef struct tp_init_rule {
    tp_fill fill;
    double a, b;
} tp_init_rule;

/* Weights of dense and conv layers. default: U(-1/sqrt(fan_in), 1/sqrt(fan_in)), which is what
 * torch.nn.Linear and Conv draw; kaiming: N(0, 2 / fan_in) (He et al. 2015); xavier: U(-sqrt(6 / (fan_in +
 * fan_out)), ...) (Glorot & Bengio 2010). */
tp_init_rule tp_init_weight(tp_init init, int64_t fan_in, int64_t fan_out);
/* default: as the weights; otherwise 0. */
tp_init_rule tp_init_bias(tp_init init, int64_t fan_in);
/* default: N(0, 1), as torch.nn.Embedding; kaiming: N(0, 0.01), small rows for factor models; xavier: N(0, 1
 * / width). */
tp_init_rule tp_init_embedding(tp_init init, int64_t width);

/* Element i is a function of (seed, parameter, i). */
void tp_init_fill(float *out, int64_t n, const tp_init_rule *rule, uint64_t seed, uint32_t parameter);

#ifdef __cplusplus
}
#endif
#endif
