#!/usr/bin/env bash
# The main job on real input: what a model frozen in 2003 does in each later year, and what one retrained every January on
# the last three years does. Prints a table, draws both curves, ends with the path of the newest model.
# usage: chicago_demo.sh TEMPER OUT
set -euo pipefail
temper=$1
out=$2
here=$(cd "$(dirname "$0")/.." && pwd)
recipe=$here/recipes/chicago.yaml
data=$here/datasets/chicago.h5
rm -rf "$out"
mkdir -p "$out"

number() { sed -n "s/.*\"$1\":\([0-9.eE+-]*\).*/\1/p"; } # KEY of the JSON on standard input

train() { # first year, year after the last, year to test on, run directory
    "$temper" train "$recipe" --data "$data" --out "$4" --json --quiet --set "data.split.train=[$1-01-01, $2-01-01]" \
        --set "data.split.test=[$3-01-01, $(($3 + 1))-01-01]"
}

train 2001 2004 2004 "$out/frozen" >/dev/null
printf '%-6s %12s %14s %9s\n' year "frozen MAE" "retrained MAE" seconds
: >"$out/table.tsv"
for year in $(seq 2004 2016); do
    frozen=$("$temper" evaluate "$out/frozen/model.safetensors" --data "$data" --time date --from "$year-01-01" \
        --to "$((year + 1))-01-01" --json | number mae)
    result=$(train $((year - 3)) "$year" "$year" "$out/$year")
    retrained=$(number mae <<<"$result")
    seconds=$(number seconds <<<"$result")
    printf '%s\t%s\t%s\t%s\n' "$year" "$frozen" "$retrained" "$seconds" >>"$out/table.tsv"
    printf '%-6s %12.3f %14.3f %9.2f\n' "$year" "$frozen" "$retrained" "$seconds"
done

gnuplot <<EOF
set terminal svg size 800,450 font 'DejaVu Sans,12' background 'white'
set output '$out/chicago.svg'
set title 'Chicago ridership: mean absolute error, thousands of riders a day'
set xlabel 'year'
set ylabel 'MAE'
set yrange [0:*]
set key top left
set grid ytics
plot '$out/table.tsv' using 1:2 with linespoints lw 2 title 'trained once, on 2001-2003', \
     '$out/table.tsv' using 1:3 with linespoints lw 2 title 'retrained every January on the last three years'
EOF

awk -F'\t' '{ sum += $3; n++; frozen = $2; retrained = $3 }
    END { printf "mean retrained MAE %.3f (bar: at most 1.50); in 2016 frozen / retrained = %.2f (bar: at least 2.5)\n",
          sum / n, frozen / retrained; exit !(sum / n <= 1.5 && frozen / retrained >= 2.5) }' "$out/table.tsv"
echo "plot  $out/chicago.svg"
echo "model $out/2016/model.safetensors"
