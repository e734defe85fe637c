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
    int borrowed; /* its memory is somebody else's */
} entry;

struct tp_tensors {
    entry *entries;
    int n, room;
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
        if (!t->entries[i].borrowed)
            tp_free(t->entries[i].tensor.data);
    }
    json_decref(t->meta);
    tp_free(t->entries);
    tp_free(t);
}

/* Adds a tensor whose name is known to be new, with memory of its own if it has none. */
static tp_status append(tp_tensors *t, const char *name, tp_tensor tensor)
{
    entry e = {.tensor = tensor, .borrowed = tensor.data != NULL};

    if (t->n == t->room) {
        const int room = 2 * t->room + 16;
        TP_TRY(tp_realloc(&t->entries, (size_t)t->n, (size_t)room, sizeof(entry), "tensors"));
        t->room = room;
    }
    TP_TRY(tp_strdup(&e.name, name));
    const tp_status st = e.borrowed ? TP_OK : tp_alloc(&e.tensor.data, tp_tensor_bytes(&e.tensor), 1, name);
    if (st != TP_OK) {
        tp_free(e.name);
        return st;
    }
    t->entries[t->n++] = e;
    return TP_OK;
}

static int is_text(const char *s)
{
    json_t *j = json_string(s); /* NULL unless it is UTF-8 */
    json_decref(j);
    return j != NULL;
}

static tp_status add(tp_tensors *t, const char *name, tp_tensor tensor)
{
    TP_TRY(tp_shape_check(tensor.shape, tensor.dtype));
    TP_CHECK(is_text(name) && strcmp(name, "__metadata__") != 0, TP_EINVAL,
             "tensor '%s': a name must be UTF-8 text and not __metadata__", name);
    TP_CHECK(tp_tensors_find(t, name) == NULL, TP_EINVAL, "tensor '%s' is there twice", name);
    return append(t, name, tensor);
}

tp_status tp_tensors_add(tp_tensors *t, const char *name, tp_dtype dtype, tp_shape shape, void **data)
{
    *data = NULL;
    TP_TRY(add(t, name, (tp_tensor){NULL, shape, dtype}));
    *data = t->entries[t->n - 1].tensor.data;
    return TP_OK;
}

tp_status tp_tensors_borrow(tp_tensors *t, const char *name, tp_tensor tensor)
{
    TP_CHECK(tensor.data != NULL, TP_EINVAL, "tensor '%s': there is no memory to borrow", name);
    return add(t, name, tensor);
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
    TP_CHECK(strcmp(key, "hash") != 0 && strncmp(key, "hash.", 5) != 0, TP_EINVAL,
             "metadata '%s': hash and hash.* are written by the library", key);
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
    char dtype[5] = "";

    snprintf(dtype, sizeof(dtype), "%s", dtype_text(e->tensor.dtype));
    crypto_generichash_init(&s, NULL, 0, HASH_BYTES);
    crypto_generichash_update(&s, (const unsigned char *)e->name, strlen(e->name) + 1);
    crypto_generichash_update(&s, (const unsigned char *)dtype, 4);
    crypto_generichash_update(&s, (const unsigned char *)e->tensor.shape.d,
                              sizeof(int64_t) * (size_t)e->tensor.shape.nd);
    crypto_generichash_update(&s, e->tensor.data, tp_tensor_bytes(&e->tensor));
    crypto_generichash_final(&s, out, HASH_BYTES);
}

static void hex_of(const unsigned char *bytes, char hex[65])
{
    sodium_bin2hex(hex, 65, bytes, HASH_BYTES);
}

/* Hash of the metadata but for the entry "hash" itself: what keeps names and texts from changing unseen. */
static tp_status hash_meta(const json_t *meta, char hex[65])
{
    unsigned char hash[HASH_BYTES];
    json_t *rest = json_copy((json_t *)(uintptr_t)meta);
    char *text = NULL;

    if (rest != NULL) {
        json_object_del(rest, "hash");
        text = json_dumps(rest, JSON_COMPACT | JSON_SORT_KEYS);
        json_decref(rest);
    }
    TP_CHECK(text != NULL, TP_ENOMEM, "metadata: no memory for its hash");
    crypto_generichash(hash, HASH_BYTES, (const unsigned char *)text, strlen(text), NULL, 0);
    free(text);
    hex_of(hash, hex);
    return TP_OK;
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

/* Puts the description and the hash of one tensor, whose bytes begin at `at`, into the header. */
static tp_status describe(const entry *e, uint64_t at, json_t *root, json_t *meta)
{
    const uint64_t end = at + tp_tensor_bytes(&e->tensor);
    json_t *shape = json_array();
    unsigned char hash[HASH_BYTES];
    char hex[65], *key = NULL;

    for (int k = 0; k < e->tensor.shape.nd; k++)
        json_array_append_new(shape, json_integer(e->tensor.shape.d[k]));
    int bad = json_array_size(shape) != (size_t)e->tensor.shape.nd;
    json_t *d = json_pack("{s:s, s:o, s:[I,I]}", "dtype", dtype_text(e->tensor.dtype), "shape", shape,
                          "data_offsets", (json_int_t)at, (json_int_t)end);
    bad |= json_object_set_new(root, e->name, d) != 0;
    hash_tensor(e, hash);
    hex_of(hash, hex);
    TP_TRY(tp_format(&key, "hash.%s", e->name));
    bad |= json_object_set_new(meta, key, json_string(hex)) != 0;
    tp_free(key);
    TP_CHECK(!bad, TP_ENOMEM, "safetensors: no memory for the header");
    return TP_OK;
}

/* The header as compact JSON; free with free(). */
static tp_status describe_all(const tp_tensors *t, char **header)
{
    json_t *root = json_object(), *meta = json_deep_copy(t->meta);
    char hex[65];
    uint64_t at = 0;
    tp_status st = TP_OK;

    *header = NULL;
    for (int i = 0; i < t->n && st == TP_OK; i++) {
        st = describe(&t->entries[i], at, root, meta);
        at += tp_tensor_bytes(&t->entries[i].tensor);
    }
    if (st == TP_OK)
        st = hash_meta(meta, hex);
    if (st == TP_OK && json_object_set_new(meta, "hash", json_string(hex)) == 0 &&
        json_object_set(root, "__metadata__", meta) == 0)
        *header = json_dumps(root, JSON_COMPACT);
    json_decref(meta);
    json_decref(root);
    TP_TRY(st);
    TP_CHECK(*header != NULL, TP_ENOMEM, "safetensors: no memory for the header");
    return TP_OK;
}

/* The whole file in memory: header padded with spaces to 8 bytes, then the tensors. */
static tp_status serialise(const tp_tensors *t, unsigned char **out, size_t *n)
{
    char *header = NULL;
    size_t bytes = 8;

    TP_TRY(describe_all(t, &header));
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
        memcpy(at, header, len); // NOLINT(bugprone-not-null-terminated-result): bytes of a file, not a string
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

/* hashed: the file carries hashes, so this tensor must have one. */
static tp_status check_hash(const tp_tensors *t, const char *path, const entry *e, int hashed)
{
    char hex[65], *key = NULL;
    unsigned char hash[HASH_BYTES];

    if (!hashed)
        return TP_OK;
    TP_TRY(tp_format(&key, "hash.%s", e->name));
    const char *want = tp_tensors_meta(t, key);
    hash_tensor(e, hash);
    hex_of(hash, hex);
    const tp_status st = want != NULL && strcmp(want, hex) == 0
                             ? TP_OK
                             : tp_error_set(TP_EDATA, __FILE__, __LINE__,
                                            "%s: tensor '%s' is damaged: its hash is %.16s..., must be %.16s",
                                            path, e->name, hex, want != NULL ? want : "in the metadata");
    if (st == TP_OK)
        json_object_del(t->meta, key);
    tp_free(key);
    return st;
}

static tp_status take_tensor(tp_tensors *t, const char *path, const char *name, const json_t *d,
                             const unsigned char *data, uint64_t bytes, int hashed, extent *where)
{
    const char *dtype = json_string_value(json_object_get(d, "dtype"));
    tp_tensor x = {.dtype = dtype_named(dtype)};
    const json_t *offsets = json_object_get(d, "data_offsets");
    const json_t *b = json_array_get(offsets, 0), *e = json_array_get(offsets, 1);

    TP_CHECK(x.dtype != TP_DTYPE_NONE, TP_EDATA, "%s: tensor '%s' has an unknown dtype '%s'", path, name,
             dtype != NULL ? dtype : "");
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
    TP_TRY(append(t, name, x));
    const entry *own = &t->entries[t->n - 1];
    memcpy(own->tensor.data, data + where->begin, tp_tensor_bytes(&x));
    return check_hash(t, path, own, hashed);
}

/* *hashed: the file was written with hashes. */
static tp_status take_meta(tp_tensors *t, const char *path, json_t *meta, int *hashed)
{
    const char *key;
    json_t *value;
    char hex[65];
    int tensor_hashes = 0;

    TP_CHECK(meta == NULL || json_is_object(meta), TP_EDATA, "%s: __metadata__ is not a map", path);
    json_object_foreach(meta, key, value)
    {
        TP_CHECK(json_is_string(value), TP_EDATA, "%s: metadata '%s' is not text", path, key);
        TP_CHECK(json_object_set(t->meta, key, value) == 0, TP_ENOMEM, "%s: no memory for its metadata",
                 path);
        tensor_hashes |= strncmp(key, "hash.", 5) == 0;
    }
    const char *want = tp_tensors_meta(t, "hash");
    *hashed = want != NULL;
    TP_CHECK(*hashed || !tensor_hashes, TP_EDATA, "%s: its metadata is damaged: its hash is missing", path);
    if (!*hashed)
        return TP_OK;
    TP_TRY(hash_meta(t->meta, hex));
    TP_CHECK(strcmp(want, hex) == 0, TP_EDATA,
             "%s: its metadata is damaged: its hash is %.16s..., must be %.16s...", path, hex, want);
    json_object_del(t->meta, "hash");
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
    int hashed = 0;

    TP_CHECK(json_is_object(root), TP_EDATA, "%s: its header is not a map", path);
    TP_TRY(take_meta(t, path, json_object_get(root, "__metadata__"), &hashed));
    TP_TRY(tp_alloc(&extents, json_object_size(root) + 1, sizeof(extent), "safetensors"));
    json_object_foreach(root, name, d)
    {
        if (strcmp(name, "__metadata__") != 0 && st == TP_OK)
            st = take_tensor(t, path, name, d, data, bytes, hashed, &extents[t->n]);
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
