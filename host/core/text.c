#include "host/core/text.h"
#include <string.h>

#define LONGEST 255

static int least(int a, int b, int c)
{
    const int m = a < b ? a : b;
    return m < c ? m : c;
}

int tp_text_distance(const char *a, const char *b)
{
    int row[LONGEST + 1]; /* distances from the letters of a so far to each beginning of b */
    const int na = (int)strnlen(a, LONGEST), nb = (int)strnlen(b, LONGEST);

    for (int j = 0; j <= nb; j++)
        row[j] = j;
    for (int i = 0; i < na; i++) {
        int diagonal = row[0];
        row[0] = i + 1;
        for (int j = 1; j <= nb; j++) {
            const int above = row[j];
            row[j] = least(above + 1, row[j - 1] + 1, diagonal + (a[i] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[nb];
}
