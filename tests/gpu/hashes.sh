#!/usr/bin/env bash
# hashes.sh KNOWN FOUND: what own kernels gave (FOUND, as run.sh makes it) beside what a GPU is known to give (KNOWN,
# tests/golden/kernel_hashes.txt). Prints how many are equal, differ (the first five by name), are new, and were not made.
# Exit code 1 if one differs, or if none was compared.
set -euo pipefail
awk '
    /^#/ || NF == 0 { next }
    { key = $0; sub(/ [^ ]*$/, "", key) }
    FILENAME == ARGV[1] { known[key] = $NF; n_known++; next }
    !(key in known) { new++; next }
    { made++ }
    known[key] == $NF { equal++; next }
    { if (differ++ < 5) names = names (names != "" ? "; " : "") key }
    END {
        printf "%d equal, %d differ%s, %d new, %d not made\n", equal, differ, names != "" ? " (" names ")" : "", new, n_known - made
        exit differ > 0 || equal == 0
    }' "${1:?hashes.sh KNOWN FOUND}" "${2:?hashes.sh KNOWN FOUND}"
