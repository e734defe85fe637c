/* text.h - how alike two names are, for "nearest is ..." in messages. */
#ifndef TP_CORE_TEXT_H
#define TP_CORE_TEXT_H

#ifdef __cplusplus
extern "C" {
#endif

/* Levenshtein's distance: single-letter edits between two names. Of each only the first 255 letters count. */
int tp_text_distance(const char *a, const char *b);

#ifdef __cplusplus
}
#endif
#endif
