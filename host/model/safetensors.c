#include "temper/safetensors.h"
#include "host/core/io.h"
#include "host/core/mem.h"
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_HEADER ((uint64_t)100 << 20)
#define HASH_BYTES 32

typedef struct entry {
    char *name;
    tp_tensor tensor;
} entry;

struct tp_tensors {
    entry *entries;
    int n;
    json_t *meta; /* object of strings */
};

static const struct {
    const char *name;
    tp_dtype dtype;
} dtypes[] = {{"F64", TP_F64}, {"F32", TP_F32}, {"F16", TP_F16}, {"BF16", TP_BF16}, {"I64", TP_I64},
              {"I32", TP_I32}, {"I16", TP_I16}, {"I8", TP_I8},   {"U64", TP_U64},   {"U32", TP_U32},
              {"U16", TP_U16}, {"U8", TP_U8},   {"BOOL", TP_U8}};

static const char *dtype_text(tp_dtype dtype)
{
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++)
        if (dtypes[i].dtype == dtype)
            return dtypes[i].name;
    return "";
}

static tp_dtype dtype_named(const char *name)
{
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++)
        if (name != NULL && strcmp(dtypes[i].name, name) == 0)
            return dtypes[i].dtype;
    return TP_DTYPE_NONE;
}

tp_status tp_tensors_new(tp_tensors **out)
{
    TP_TRY(tp_alloc(out, 1, sizeof(**out), "tensors"));
    (*out)->meta = json_object();
    if ((*out)->meta == NULL || sodium_init() < 0) {
        tp_tensors_free(*out);
        *out = NULL;
        TP_FAIL(TP_ENOMEM, "tensors: no memory");
    }
    return TP_OK;
}

void tp_tensors_free(tp_tensors *t)
{
    if (t == NULL)
        return;
    for (int i = 0; i < t->n; i++) {
        tp_free(t->entries[i].name);
        tp_free(t->entries[i].tensor.data);
    }
    json_decref(t->meta);
    tp_free(t->entries);
    tp_free(t);
}

tp_status tp_tensors_add(tp_tensors *t, const char *name, tp_dtype dtype, tp_shape shape, void **data)
{
    const size_t n = (size_t)t->n;
    entry e = {.tensor = {NULL, shape, dtype}};

    *data = NULL;
    TP_TRY(tp_shape_check(shape, dtype));
    TP_CHECK(tp_tensors_find(t, name) == NULL, TP_EINVAL, "tensor '%s' is there twice", name);
    TP_TRY(tp_realloc(&t->entries, n, n + 1, sizeof(entry), "tensors"));
    TP_TRY(tp_strdup(&e.name, name));
    const tp_status st = tp_alloc(&e.tensor.data, tp_tensor_bytes(&e.tensor), 1, name);
    if (st != TP_OK) {
        tp_free(e.name);
        return st;
    }
    t->entries[t->n++] = e;
    *data = e.tensor.data;
    return TP_OK;
}

int tp_tensors_count(const tp_tensors *t)
{
    return t->n;
}

const char *tp_tensors_name(const tp_tensors *t, int i)
{
    return t->entries[i].name;
}

const tp_tensor *tp_tensors_at(const tp_tensors *t, int i)
{
    return &t->entries[i].tensor;
}

const tp_tensor *tp_tensors_find(const tp_tensors *t, const char *name)
{
    for (int i = 0; i < t->n; i++)
        if (strcmp(t->entries[i].name, name) == 0)
            return &t->entries[i].tensor;
    return NULL;
}

tp_status tp_tensors_meta_set(tp_tensors *t, const char *key, const char *text)
{
    TP_CHECK(json_object_set_new(t->meta, key, json_string(text)) == 0, TP_EINVAL,
             "metadata '%s' is not UTF-8 text", key);
    return TP_OK;
}

const char *tp_tensors_meta(const tp_tensors *t, const char *key)
{
    return json_string_value(json_object_get(t->meta, key));
}

/* ---- hashes ---- */

static void hash_tensor(const entry *e, unsigned char out[HASH_BYTES])
{
    crypto_generichash_state s;
    crypto_generichash_init(&s, NULL, 0, HASH_BYTES);
    crypto_generichash_update(&s, (const unsigned char *)e->name, strlen(e->name) + 1);
    crypto_generichash_update(&s, (const unsigned char *)dtype_text(e->tensor.dtype), 4);
    crypto_generichash_update(&s, (const unsigned char *)e->tensor.shape.d,
                              sizeof(int64_t) * (size_t)e->tensor.shape.nd);
    crypto_generichash_update(&s, e->tensor.data, tp_tensor_bytes(&e->tensor));
    crypto_generichash_final(&s, out, HASH_BYTES);
}

static void hex_of(const unsigned char *bytes, char hex[65])
{
    sodium_bin2hex(hex, 65, bytes, HASH_BYTES);
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const entry *const *)a)->name, (*(const entry *const *)b)->name);
}

tp_status tp_tensors_hash(const tp_tensors *t, char hex[65])
{
    const entry **order = NULL;
    unsigned char one[HASH_BYTES];
    crypto_generichash_state s;

    TP_TRY(tp_alloc(&order, (size_t)t->n + 1, sizeof(entry *), "hash"));
    for (int i = 0; i < t->n; i++)
        order[i] = &t->entries[i];
    qsort(order, (size_t)t->n, sizeof(entry *), by_name);
    crypto_generichash_init(&s, NULL, 0, HASH_BYTES);
    for (int i = 0; i < t->n; i++) {
        hash_tensor(order[i], one);
        crypto_generichash_update(&s, one, HASH_BYTES);
    }
    crypto_generichash_final(&s, one, HASH_BYTES);
    tp_free(order);
    hex_of(one, hex);
    return TP_OK;
}

/* ---- writing ---- */

static json_t *describe(const tp_tensors *t)
{
    json_t *root = json_object(), *meta = json_deep_copy(t->meta);
    uint64_t at = 0;

    for (int i = 0; i < t->n; i++) {
        const entry *e = &t->entries[i];
        const uint64_t bytes = tp_tensor_bytes(&e->tensor);
        unsigned char hash[HASH_BYTES];
        char hex[65], key[512];
        json_t *shape = json_array();
        for (int k = 0; k < e->tensor.shape.nd; k++)
            json_array_append_new(shape, json_integer(e->tensor.shape.d[k]));
        json_object_set_new(root, e->name,
                            json_pack("{s:s, s:o, s:[I,I]}", "dtype", dtype_text(e->tensor.dtype), "shape",
                                      shape, "data_offsets", (json_int_t)at, (json_int_t)(at + bytes)));
        at += bytes;
        hash_tensor(e, hash);
        hex_of(hash, hex);
        snprintf(key, sizeof(key), "hash.%s", e->name);
        json_object_set_new(meta, key, json_string(hex));
    }
    json_object_set_new(root, "__metadata__", meta);
    return root;
}

/* The whole file in memory: header padded with spaces to 8 bytes, then the tensors. */
static tp_status serialise(const tp_tensors *t, unsigned char **out, size_t *n)
{
    json_t *root = describe(t);
    char *header = json_dumps(root, JSON_COMPACT);
    size_t bytes = 8;

    json_decref(root);
    TP_CHECK(header != NULL, TP_ENOMEM, "safetensors: no memory for the header");
    const size_t len = strlen(header), padded = (len + 7) / 8 * 8;
    bytes += padded;
    for (int i = 0; i < t->n; i++)
        bytes += tp_tensor_bytes(&t->entries[i].tensor);
    const tp_status st = tp_alloc(out, bytes, 1, "safetensors file");
    if (st == TP_OK) {
        unsigned char *at = *out;
        for (int i = 0; i < 8; i++)
            *at++ = (unsigned char)(padded >> (8 * i));
        memset(at, ' ', padded);
        memcpy(at, header, len);
        at += padded;
        for (int i = 0; i < t->n; i++) {
            memcpy(at, t->entries[i].tensor.data, tp_tensor_bytes(&t->entries[i].tensor));
            at += tp_tensor_bytes(&t->entries[i].tensor);
        }
        *n = bytes;
    }
    free(header);
    return st;
}

tp_status tp_tensors_save(const tp_tensors *t, const char *path)
{
    unsigned char *bytes = NULL;
    size_t n = 0;

    TP_TRY(serialise(t, &bytes, &n));
    const tp_status st = tp_io_replace(path, bytes, n);
    tp_free(bytes);
    return st;
}

/* ---- reading ---- */

typedef struct extent {
    uint64_t begin, end;
} extent;

static int by_begin(const void *a, const void *b)
{
    const extent *x = a, *y = b;
    return x->begin != y->begin ? (x->begin < y->begin ? -1 : 1) : (x->end < y->end ? -1 : x->end > y->end);
}

static tp_status take_shape(const char *path, const char *name, const json_t *list, tp_shape *shape)
{
    *shape = tp_shape_scalar();
    TP_CHECK(json_is_array(list) && json_array_size(list) <= TP_MAX_DIMS, TP_EDATA,
             "%s: tensor '%s' has no shape of at most %d dimensions", path, name, TP_MAX_DIMS);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *d = json_array_get(list, i);
        TP_CHECK(json_is_integer(d) && json_integer_value(d) >= 0, TP_EDATA,
                 "%s: tensor '%s': dimension %zu is not a whole number >= 0", path, name, i);
        shape->d[shape->nd++] = json_integer_value(d);
    }
    return TP_OK;
}

static tp_status check_hash(const tp_tensors *t, const char *path, const entry *e)
{
    char key[512], hex[65];
    unsigned char hash[HASH_BYTES];

    snprintf(key, sizeof(key), "hash.%s", e->name);
    const char *want = tp_tensors_meta(t, key);
    if (want == NULL)
        return TP_OK;
    hash_tensor(e, hash);
    hex_of(hash, hex);
    TP_CHECK(strcmp(want, hex) == 0, TP_EDATA,
             "%s: tensor '%s' is damaged: its hash is %.16s..., must be %.16s...", path, e->name, hex, want);
    json_object_del(t->meta, key);
    return TP_OK;
}

static tp_status take_tensor(tp_tensors *t, const char *path, const char *name, const json_t *d,
                             const unsigned char *data, uint64_t bytes, extent *where)
{
    tp_tensor x = {.dtype = dtype_named(json_string_value(json_object_get(d, "dtype")))};
    const json_t *offsets = json_object_get(d, "data_offsets");
    const json_t *b = json_array_get(offsets, 0), *e = json_array_get(offsets, 1);
    void *dst = NULL;

    TP_CHECK(x.dtype != TP_DTYPE_NONE, TP_EDATA, "%s: tensor '%s' has an unknown dtype", path, name);
    TP_TRY(take_shape(path, name, json_object_get(d, "shape"), &x.shape));
    TP_CHECK(tp_shape_check(x.shape, x.dtype) == TP_OK, TP_EDATA, "%s: tensor '%s' is too large", path, name);
    TP_CHECK(json_array_size(offsets) == 2 && json_is_integer(b) && json_is_integer(e) &&
                 json_integer_value(b) >= 0 && json_integer_value(e) >= json_integer_value(b) &&
                 (uint64_t)json_integer_value(e) <= bytes,
             TP_EDATA, "%s: tensor '%s' does not lie within the file's %llu data bytes", path, name,
             (unsigned long long)bytes);
    *where = (extent){(uint64_t)json_integer_value(b), (uint64_t)json_integer_value(e)};
    TP_CHECK(where->end - where->begin == tp_tensor_bytes(&x), TP_EDATA,
             "%s: tensor '%s' has %llu bytes, its shape needs %zu", path, name,
             (unsigned long long)(where->end - where->begin), tp_tensor_bytes(&x));
    TP_TRY(tp_tensors_add(t, name, x.dtype, x.shape, &dst));
    memcpy(dst, data + where->begin, tp_tensor_bytes(&x));
    return check_hash(t, path, &t->entries[t->n - 1]);
}

static tp_status take_meta(tp_tensors *t, const char *path, json_t *meta)
{
    const char *key;
    json_t *value;

    TP_CHECK(meta == NULL || json_is_object(meta), TP_EDATA, "%s: __metadata__ is not a map", path);
    json_object_foreach(meta, key, value)
    {
        TP_CHECK(json_is_string(value), TP_EDATA, "%s: metadata '%s' is not text", path, key);
        json_object_set(t->meta, key, value);
    }
    return TP_OK;
}

static tp_status take_all(tp_tensors *t, const char *path, json_t *root, const unsigned char *data,
                          uint64_t bytes)
{
    extent *extents = NULL;
    const char *name;
    json_t *d;
    tp_status st = TP_OK;
    uint64_t at = 0;

    TP_CHECK(json_is_object(root), TP_EDATA, "%s: its header is not a map", path);
    TP_TRY(take_meta(t, path, json_object_get(root, "__metadata__")));
    TP_TRY(tp_alloc(&extents, json_object_size(root) + 1, sizeof(extent), "safetensors"));
    json_object_foreach(root, name, d)
    {
        if (strcmp(name, "__metadata__") != 0 && st == TP_OK)
            st = take_tensor(t, path, name, d, data, bytes, &extents[t->n]);
    }
    if (st == TP_OK) {
        qsort(extents, (size_t)t->n, sizeof(extent), by_begin);
        for (int i = 0; i < t->n && st == TP_OK; i++) {
            if (extents[i].begin != at)
                st = tp_error_set(TP_EDATA, __FILE__, __LINE__,
                                  "%s: its tensors overlap or leave a hole at byte %llu", path,
                                  (unsigned long long)at);
            at = extents[i].end;
        }
        if (st == TP_OK && at != bytes)
            st = tp_error_set(TP_EDATA, __FILE__, __LINE__, "%s: has %llu data bytes, its tensors %llu", path,
                              (unsigned long long)bytes, (unsigned long long)at);
    }
    tp_free(extents);
    return st;
}

static tp_status parse(tp_tensors *t, const char *path, const unsigned char *bytes, size_t n)
{
    uint64_t header = 0;
    json_error_t error;

    TP_CHECK(n >= 8, TP_EDATA, "%s: has %zu bytes, a safetensors file at least 8", path, n);
    for (int i = 7; i >= 0; i--)
        header = header << 8 | bytes[i];
    TP_CHECK(header <= MAX_HEADER && header <= n - 8, TP_EDATA,
             "%s: is not a safetensors file (header of %llu bytes in a file of %zu)", path,
             (unsigned long long)header, n);
    json_t *root = json_loadb((const char *)bytes + 8, header, JSON_REJECT_DUPLICATES, &error);
    TP_CHECK(root != NULL, TP_EDATA, "%s: its header is not JSON: %s", path, error.text);
    const tp_status st = take_all(t, path, root, bytes + 8 + header, n - 8 - header);
    json_decref(root);
    return st;
}

tp_status tp_tensors_load(tp_tensors **out, const char *path)
{
    unsigned char *bytes = NULL;
    size_t n = 0;
    tp_tensors *t = NULL;

    *out = NULL;
    TP_TRY(tp_io_read(path, &bytes, &n));
    tp_status st = tp_tensors_new(&t);
    if (st == TP_OK)
        st = parse(t, path, bytes, n);
    tp_free(bytes);
    if (st != TP_OK) {
        tp_tensors_free(t);
        return st;
    }
    *out = t;
    return TP_OK;
}
