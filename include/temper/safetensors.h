/* safetensors.h - named tensors with text metadata in one file anyone can open.
 *
 * The format (Hugging Face safetensors): 8 bytes little-endian header size, a JSON header {"name": {"dtype",
 * "shape", "data_offsets"}, "__metadata__": {text: text}}, then the tensors' bytes without holes. Files
 * written here carry a BLAKE2b hash of each tensor in the metadata ("hash.<name>") and one of the metadata
 * ("hash"), checked on every load; files without hashes load too. */
#ifndef TP_SAFETENSORS_H
#define TP_SAFETENSORS_H
#include "temper/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tp_tensors tp_tensors;

/* Errors: TP_ENOMEM. Free with tp_tensors_free. */
TP_API tp_status tp_tensors_new(tp_tensors **out) TP_MUST_USE;
TP_API void tp_tensors_free(tp_tensors *t); /* NULL is fine */

/* Adds a tensor of zeros; *data is its host memory, owned by t. Errors: TP_EINVAL (a name twice, not UTF-8 or
 * "__metadata__"), TP_ESHAPE, TP_ENOMEM. */
TP_API tp_status tp_tensors_add(tp_tensors *t, const char *name, tp_dtype dtype, tp_shape shape, void **data)
    TP_MUST_USE;
/* The same with host memory that stays the caller's and is neither copied nor freed: it has to live as long
 * as t is hashed, saved or read through. Errors: as tp_tensors_add; TP_EINVAL too if tensor.data is NULL. */
TP_API tp_status tp_tensors_borrow(tp_tensors *t, const char *name, tp_tensor tensor) TP_MUST_USE;
TP_API int tp_tensors_count(const tp_tensors *t);
/* i from 0 to count - 1. A name lives as long as t, a tp_tensor until the next one is added. */
TP_API const char *tp_tensors_name(const tp_tensors *t, int i);
TP_API const tp_tensor *tp_tensors_at(const tp_tensors *t, int i);
TP_API const tp_tensor *tp_tensors_find(const tp_tensors *t, const char *name); /* NULL if there is none */

/* Sets an entry of the metadata, in the place of one with this key; key and text are copied. Errors:
 * TP_EINVAL (not UTF-8; "hash" and "hash.<anything>" are the library's). */
TP_API tp_status tp_tensors_meta_set(tp_tensors *t, const char *key, const char *text) TP_MUST_USE;
/* NULL if there is none. Borrowed until the key is set again or t is freed. */
TP_API const char *tp_tensors_meta(const tp_tensors *t, const char *key);

/* Hash over names, dtypes, shapes and bytes of every tensor in order of name: 64 hexadecimal digits and a 0.
 * Errors: TP_ENOMEM. */
TP_API tp_status tp_tensors_hash(const tp_tensors *t, char hex[65]) TP_MUST_USE;

/* Writes to a temporary file beside path, syncs, reads it back and verifies it, then renames it into place:
 * path holds the old content or the new, whole. Needs memory for the file as a whole. Errors: TP_ECREATE,
 * TP_EIO, TP_ENOMEM. */
TP_API tp_status tp_tensors_save(const tp_tensors *t, const char *path) TP_MUST_USE;

/* On failure *out is NULL. Errors: TP_ENOENT, TP_EIO, TP_ENOMEM, TP_EDATA naming tensor, value and limit. */
TP_API tp_status tp_tensors_load(tp_tensors **out, const char *path) TP_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
