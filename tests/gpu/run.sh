#!/usr/bin/env bash
# run.sh OUT [TEMPER ENGINE_TESTS MODULE]: what can only be shown on a GPU, in at most 9 minutes. From an unpacked bundle
# the three programs are found beside this file. Each part writes a file into OUT and a line into OUT/summary.txt:
# "passed", "failed" or "skipped" with the reason. Nothing is printed that was not measured.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(mkdir -p "$1" && cd "$1" && pwd)
root=$(cd "$here/.." && pwd)
[ -d "$root/recipes" ] || root=$(cd "$root/.." && pwd)
temper=${2:-$root/bin/temper}
tests=${3:-$root/bin/engine_tests}
module=${4:-$root/lib/libtemper_cuda.so}
temper=$(realpath "$temper") tests=$(realpath "$tests") module=$(realpath -m "$module")
export TEMPER_CUDA_MODULE=$module TEMPER_TEST_CUDA_MODULE=$module
start=$SECONDS
failed=0
: >"$out/summary.txt"

note() {
    printf '%4d s  %-28s %s\n' "$((SECONDS - start))" "$1" "$2" | tee -a "$out/summary.txt"
}

# part NAME SECONDS COMMAND...: runs it within its time, its output in OUT/NAME.log.
part() {
    local name=$1 limit=$2
    shift 2
    timeout "$limit" bash -c '"$@"' part "$@" >"$out/$name.log" 2>&1 # a bash, so that it may be a function
    local code=$?
    case $code in
    0) note "$name" passed ;;
    124) note "$name" "skipped: not done after $limit s" ;;
    *)
        note "$name" "failed: exit $code: $(tail -1 "$out/$name.log")"
        failed=1
        ;;
    esac
    return $code
}

train() { # NAME DEVICE RECIPE [OPTION...]
    local name=$1 device=$2 recipe=$3
    shift 3
    rm -rf "$out/runs/$name"
    "$temper" train "$root/recipes/$recipe.yaml" --device "$device" --out "$out/runs/$name" --json --quiet "$@"
}

hash_of() { sed 's/.*"weights_hash":"\([0-9a-f]*\)".*/\1/'; }

parity() { # the loss of each of the first steps on the GPU beside the CPU's
    train parity-cpu cpu chicago --set train.epochs=3 --set train.report=1 || return 1
    train parity-gpu cuda chicago --set train.epochs=3 --set train.report=1 --set train.precision=fp32 || return 1
    paste <(sed 's/.*"loss":\([^,]*\),.*/\1/' "$out/runs/parity-cpu/metrics.jsonl") \
        <(sed 's/.*"loss":\([^,]*\),.*/\1/' "$out/runs/parity-gpu/metrics.jsonl") |
        awk '{ d = ($2 - $1) / $1; d = d < 0 ? -d : d; if (d > worst) worst = d; n++ }
             END { printf "%d steps, largest relative difference %g\n", n, worst; exit !(n > 20 && worst < 1e-3) }'
}

repeats() { # the same weights every time
    local first hash
    for i in $(seq 1 20); do
        hash=$(train repeat cuda chicago --set train.epochs=2 | hash_of) || return 1
        first=${first:-$hash}
        [ "$hash" = "$first" ] || { echo "run $i: $hash, the first $first"; return 1; }
    done
    echo "20 runs: $first"
}

resume() { # stopped after its first checkpoint and resumed in a new process: the same weights
    local whole halves pid code common=(--device cuda --json --quiet --set train.save=7)
    whole=$(train whole cuda chicago --set train.save=7 | hash_of) || return 1
    rm -rf "$out/runs/halves"
    "$temper" train "$root/recipes/chicago.yaml" --out "$out/runs/halves" "${common[@]}" &
    pid=$!
    until [ -n "$(ls -A "$out/runs/halves/checkpoints" 2>/dev/null)" ] || ! kill -0 $pid 2>/dev/null; do sleep 0.01; done
    kill -TERM $pid 2>/dev/null
    wait $pid
    code=$?
    halves=$("$temper" train "$root/recipes/chicago.yaml" --out "$out/runs/halves" --resume "${common[@]}" | hash_of) || return 1
    echo "first half: exit $code; whole $whole, in halves $halves"
    [ $code = 75 ] && [ "$whole" = "$halves" ]
}

export -f train hash_of parity repeats resume
export temper root out

"$temper" devices --json >"$out/devices.json" 2>&1
if ! "$temper" devices | grep -q '^cuda:0 '; then
    note gpu "skipped: $("$temper" devices | sed -n 's/^cuda  *//p')"
    exit 0
fi
note gpu "$("$temper" devices | sed -n 's/^cuda:0  *//p')"
part ops "${OPS_SECONDS:-120}" env TEMPER_TEST_SCHEDULES=100 TEMPER_TEST_HASHES="$out/hashes.txt" OMP_NUM_THREADS=4 "$tests" --gtest_brief=1 \
    --gtest_filter='*CudaOpCase*:CudaDevice*'
part parity 40 parity
part repeats 60 repeats
part resume 30 resume
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck synccheck; do
        part "$tool" 60 compute-sanitizer --tool "$tool" --error-exitcode 1 "$tests" --gtest_brief=1 \
            --gtest_filter='*CudaOpCase.EveryImplementation*_0:*CudaOpCase.EveryImplementation*_1'
    done
else
    note compute-sanitizer "skipped: not installed"
fi
part bench 120 "$temper" bench --device cuda --json && mv "$out/bench.log" "$out/bench.jsonl"
if python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    part vs_torch 150 python3 "$root/benchmarks/vs_torch.py" --device cuda --temper "$temper" --out "$out/vs_torch.csv"
else
    note vs_torch "skipped: no PyTorch with CUDA"
fi
rm -rf "$out/runs"
exit $failed
