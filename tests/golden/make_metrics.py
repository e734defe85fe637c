"""Writes tests/golden/metrics.inc: what scikit-learn says about small cases (run with scikit-learn 1.2).

Outputs are logits (class, multilabel) or values (regression). The expected calibration error, the multiclass Brier
score and top-k with k above the number of classes are not in scikit-learn and are plain NumPy here."""
import os
import warnings
import numpy as np
import sklearn
from sklearn import metrics as sk

rng = np.random.default_rng(20010122)
BINS = 15


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def ece(p, y, w):
    top, conf, total = p.argmax(axis=1), p.max(axis=1), 0.0
    edges = np.linspace(0, 1, BINS + 1)
    for lo, hi in zip(edges[:-1], edges[1:]):
        m = (conf > lo) & (conf <= hi)
        if w[m].sum() > 0:
            total += w[m].sum() * abs(np.average(conf[m], weights=w[m]) - np.average(top[m] == y[m], weights=w[m]))
    return total / w.sum()


def one_vs_rest(score, z, p, y, w):
    """Mean over the classes; NaN when a class has no positive or no negative."""
    width = z.shape[1]
    columns = [(z[:, 1].astype(np.float64) - z[:, 0], y == 1)] if width == 2 else [
        (p[:, k], y == k) for k in range(width)]
    if any(w[t].sum() == 0 or w[~t].sum() == 0 and score is sk.roc_auc_score for _, t in columns):
        return np.nan
    return np.mean([score(t, s, sample_weight=w) for s, t in columns])


def classes(z, y, w):
    p, width = softmax(z.astype(np.float64)), z.shape[1]
    said, labels = z.argmax(axis=1), np.arange(width)
    onehot = np.eye(width)[y]
    out = {
        "accuracy": sk.accuracy_score(y, said, sample_weight=w),
        "balanced_accuracy": sk.recall_score(y, said, labels=np.unique(y), average="macro", sample_weight=w),
        "f1": sk.f1_score(y, said, average="macro", sample_weight=w, zero_division=0),
        "auroc": one_vs_rest(sk.roc_auc_score, z, p, y, w),
        "average_precision": one_vs_rest(sk.average_precision_score, z, p, y, w),
        "log_loss": sk.log_loss(y, p, labels=labels, sample_weight=w),
        "brier": sk.brier_score_loss(y == 1, p[:, 1], sample_weight=w) if width == 2
        else np.average(((p - onehot) ** 2).sum(axis=1), weights=w),
        "ece": ece(p, y, w)}
    # scikit-learn's balanced_accuracy_score drops the classes that do not occur: the same as recall over those.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isclose(out["balanced_accuracy"], sk.balanced_accuracy_score(y, said, sample_weight=w))
    for k in (2, 3, 5, 10):
        out[f"top{k}"] = 1.0 if k >= width else sk.top_k_accuracy_score(y, z, k=k, labels=labels, sample_weight=w)
    table = sk.precision_recall_fscore_support(y, said, labels=labels, sample_weight=w, zero_division=0)
    return out, np.stack(table, axis=1)


def labels(z, y, w):
    p, said = 1 / (1 + np.exp(-z.astype(np.float64))), z > 0
    width = z.shape[1]

    def mean(f):
        return np.mean([f(y[:, k], k) for k in range(width)])
    out = {"accuracy": mean(lambda t, k: sk.accuracy_score(t, said[:, k], sample_weight=w)),
           "f1": sk.f1_score(y, said, average="macro", sample_weight=w, zero_division=0),
           "auroc": sk.roc_auc_score(y, z, average="macro", sample_weight=w),
           "average_precision": sk.average_precision_score(y, z, average="macro", sample_weight=w),
           "log_loss": mean(lambda t, k: sk.log_loss(t, p[:, k], labels=[0, 1], sample_weight=w))}
    return out, np.stack(sk.precision_recall_fscore_support(y, said, sample_weight=w, zero_division=0), axis=1)


def regression(z, y, w):
    z, y = z.astype(np.float64), y.astype(np.float64)
    return {"mae": sk.mean_absolute_error(y, z, sample_weight=w),
            "rmse": sk.mean_squared_error(y, z, sample_weight=w, squared=False),
            "mape": sk.mean_absolute_percentage_error(y, z, sample_weight=w),
            "r2": sk.r2_score(y, z, sample_weight=w) if len(y) > 1 else np.nan}, np.zeros((0, 4))


def braces(values, form="{:.9g}"):
    return "{" + ", ".join("NAN" if v != v else form.format(v) for v in values) + "}"


def emit(name, task, z, y, w):
    z, y = z.astype(np.float32), np.asarray(y)
    weights = np.ones(len(z)) if w is None else np.asarray(w, dtype=np.float32).astype(np.float64)
    if task == "REGRESSION":
        y = y.astype(np.float32)
    expected, table = {"CLASS": classes, "MULTILABEL": labels, "REGRESSION": regression}[task](z, y, weights)
    pairs = ",\n      ".join('{"%s", %s}' % (k, "NAN" if v != v else f"{v:.17g}") for k, v in expected.items())
    ids = braces(y.ravel(), "{:d}") if task == "CLASS" else "{}"
    values = "{}" if task == "CLASS" else braces(y.ravel().astype(float))
    return (f'    {{"{name}", TP_TASK_{task}, {z.shape[0]}, {z.shape[1]},\n     {braces(z.ravel().astype(float))},\n'
            f'     {ids},\n     {values},\n     {braces([] if w is None else weights)},\n     {{{pairs}}},\n'
            f'     {braces(table.ravel(), "{:.17g}")}}},\n')


def logits(n, width, y=None, ties=False):
    z = np.round(rng.normal(size=(n, width)) * 1.5, 3)
    if y is not None:
        z[np.arange(n), y] += 1.0
    if ties:  # equal rows, so that the probabilities tie to the last bit
        z[n // 2:] = z[:n - n // 2]
    return z


def weights(n):
    w = np.round(rng.uniform(0.1, 3, size=n), 2)
    w[::7] = 0.0
    return w


def cases():
    y = rng.integers(0, 2, 40)
    yield "binary", "CLASS", logits(40, 2, y), y, None
    yield "binary_weighted", "CLASS", logits(40, 2, y), y, weights(40)
    yield "binary_ties", "CLASS", np.round(logits(40, 2, y) * 2) / 2, y, weights(40)
    yield "binary_all_tied", "CLASS", np.tile([0.5, -0.25], (9, 1)), np.arange(9) % 2, None
    yield "binary_one_class", "CLASS", logits(12, 2), np.ones(12, dtype=int), None
    yield "binary_other_class", "CLASS", logits(12, 2), np.zeros(12, dtype=int), None
    yield "binary_one_sample", "CLASS", logits(1, 2), np.array([1]), None
    yield "binary_sure", "CLASS", np.array([[0, 9], [9, 0], [0, 12], [10, 0], [0, 8]]), np.array([1, 0, 0, 0, 1]), None
    y = np.arange(60) % 5
    yield "five", "CLASS", logits(60, 5, y), y, None
    yield "five_weighted", "CLASS", logits(60, 5, y), y, weights(60)
    yield "five_ties", "CLASS", logits(60, 5, y, ties=True), y, weights(60)
    y = np.array([0, 1, 3, 3, 1, 0, 3, 1, 0, 0, 3, 1])
    yield "absent_class", "CLASS", logits(12, 4, y), y, None
    z = logits(12, 4, y)
    z[:, 2] = -9
    yield "absent_and_never_said", "CLASS", z, y, weights(12)
    y = np.arange(36) % 12
    yield "twelve", "CLASS", logits(36, 12, y), y, None
    t = (rng.uniform(size=(30, 3)) < 0.4).astype(int)
    yield "labels", "MULTILABEL", logits(30, 3) + 2 * t - 1, t, None
    yield "labels_weighted_ties", "MULTILABEL", np.round(logits(30, 3) + t) / 2, t, weights(30)
    y = np.round(rng.normal(size=(25, 1)) * 3 + 5, 3)
    yield "one_output", "REGRESSION", y + np.round(rng.normal(size=y.shape), 3), y, None
    yield "one_output_weighted", "REGRESSION", y + np.round(rng.normal(size=y.shape), 3), y, weights(25)
    y = np.round(rng.normal(size=(20, 3)) * [1, 10, 0.1], 3)
    yield "three_outputs", "REGRESSION", y + np.round(rng.normal(size=y.shape) * [1, 4, 1], 3), y, None
    yield "three_outputs_weighted", "REGRESSION", y + np.round(rng.normal(size=y.shape) * [1, 4, 1], 3), y, weights(20)
    yield "zero_target", "REGRESSION", np.array([[0.5], [1.5], [2.0]]), np.array([[0.0], [1.0], [2.5]]), None
    yield "constant_target", "REGRESSION", np.array([[1.0], [3.0]]), np.array([[2.0], [2.0]]), None
    yield "constant_met", "REGRESSION", np.array([[2.0], [2.0]]), np.array([[2.0], [2.0]]), None
    yield "regression_one_sample", "REGRESSION", np.array([[2.0]]), np.array([[1.5]]), None


if __name__ == "__main__":
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "metrics.inc")
    with open(path, "w") as f:
        f.write(f"/* Written by make_metrics.py with scikit-learn {sklearn.__version__}. */\n")
        f.write("static const std::vector<MetricGolden> metric_goldens = {\n")
        for c in cases():
            f.write(emit(*c))
        f.write("};\n")
