#!/usr/bin/env bash
# run.sh OUT [TEMPER ENGINE_TESTS MODULE]: what can only be shown on a GPU, in at most 9 minutes (DEADLINE, in seconds). From
# an unpacked bundle the three programs are found beside this file. Each part writes a file into OUT and a line into
# OUT/summary.txt: "passed", "failed" or "skipped" with the reason; the exit code is 1 if one failed. The figures of all parts
# are in OUT/csv. Nothing is printed that was not measured. What only has to be right runs side by side; what is timed runs
# alone, afterwards. PARTS="check bench vs_torch" chooses.
# DATA is a folder with the files that datasets/ makes: fashion_mnist.h5 (fashion_mnist.py), movielens.h5 (movielens.py),
# mnist.h5 (mnist.py). Two recipes are measured on them; a recipe whose file is not there is compared on that of STAND_INS
# (stand_ins.py), and the part's name says so.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(mkdir -p "$1" && cd "$1" && pwd)
root=$(cd "$here/.." && pwd)
[ -d "$root/recipes" ] || root=$(cd "$root/.." && pwd)
temper=${2:-$root/bin/temper}
tests=${3:-$root/bin/engine_tests}
module=${4:-$root/lib/libtemper_cuda.so}
temper=$(realpath "$temper") tests=$(realpath "$tests") module=$(realpath -m "$module")
DATA=$(realpath -m "${DATA:-/nowhere}") STAND_INS=$(realpath -m "${STAND_INS:-$here/stand-ins}")
cd "$root" || exit 1 # recipes name their data as seen from there
export TEMPER_CUDA_MODULE=$module TEMPER_TEST_CUDA_MODULE=$module
PARTS=${PARTS:-check bench vs_torch}
REPEATS=${REPEATS:-100}
DEADLINE=${DEADLINE:-540}
start=$SECONDS
failed=0
: >"$out/summary.txt"

note() {
    printf '%4d s  %-28s %s\n' "$((SECONDS - start))" "$1" "$2" | tee -a "$out/summary.txt"
}

# run LATE OUTPUT NAME SECONDS COMMAND...: runs it within its time and what is left of the script's, standard output in
# OUT/OUTPUT, errors in OUT/NAME.log, and notes how it went; LATE is the word for "not done in time".
run() {
    local late=$1 output=$2 name=$3 limit=$4 left=$((start + DEADLINE - SECONDS)) code last
    shift 4
    rm -f "$out/$output" "$out/$name.log"
    if [ "$left" -le 0 ]; then
        note "$name" "skipped: no time left"
        return 0
    fi
    limit=$((limit < left ? limit : left))
    # A bash, so that it may be a function. Both files may be one.
    timeout -k 5 "$limit" bash -o pipefail -c '"$@"' run "$@" >>"$out/$output" 2>>"$out/$name.log"
    code=$?
    last=$(tail -n 1 "$out/$name.log")
    case $code in
    0) note "$name" "passed${last:+: $last}" ;;
    124) note "$name" "$late: not done after $limit s" ;;
    *) note "$name" "failed: exit $code: $last" ;;
    esac
    [ $code = 0 ] || [ "$late,$code" = skipped,124 ]
}

# check NAME SECONDS COMMAND...: what has to be right; not done in time, it has failed.
check() { run failed "$1.log" "$@"; }

# measure FILE SECONDS COMMAND...: figures, which are what it prints, in OUT/FILE; not done in time, there are fewer of them.
measure() { run skipped "$1" "${1%.*}" "${@:2}"; }

wants() { [[ " $PARTS " == *" $1 "* ]]; }

train() { # NAME DEVICE RECIPE [OPTION...]
    local name=$1 device=$2 recipe=$3
    shift 3
    rm -rf "$out/runs/$name"
    "$temper" train "$root/recipes/$recipe.yaml" --device "$device" --out "$out/runs/$name" --json --quiet "$@"
}

hash_of() { sed 's/.*"weights_hash":"\([0-9a-f]*\)".*/\1/'; }

ops() { # every case of every op, each implementation, in as many processes as half of the cores
    local n=$((($(nproc) + 1) / 2)) i pids=() code=0
    rm -f "$out"/runs/hashes.* "$out/hashes.txt"
    for ((i = 0; i < n; i++)); do
        GTEST_TOTAL_SHARDS=$n GTEST_SHARD_INDEX=$i TEMPER_TEST_HASHES=$out/runs/hashes.$i OMP_NUM_THREADS=2 "$tests" \
            --gtest_brief=1 --gtest_filter='*CudaOpCase*:CudaDevice*' >"$out/runs/ops.$i" 2>&1 &
        pids+=($!)
    done
    for i in "${pids[@]}"; do wait "$i" || code=1; done
    sort -V "$out"/runs/hashes.* >"$out/hashes.txt"
    cat "$out"/runs/ops.*
    if [ "$code" = 0 ]; then echo "all cases, in $n processes"; else grep -h FAILED "$out"/runs/ops.* | head -n 1; fi
    return "$code"
}

losses() { # NAME DEVICE RECIPE STEPS [OPTION...]: the loss of each of the first steps; the run is then stopped
    local run=$out/runs/$1 steps=$4 pid
    rm -rf "$run"
    "$temper" train "$root/recipes/$3.yaml" --device "$2" --out "$run" --json --quiet --set train.report=1 "${@:5}" >/dev/null &
    pid=$!
    until [ "$(cat "$run/metrics.jsonl" 2>/dev/null | wc -l)" -ge "$steps" ] || ! kill -0 "$pid" 2>/dev/null; do
        sleep 0.02
    done
    kill -TERM "$pid" 2>/dev/null
    wait "$pid"
    sed 's/.*"loss":\([^,]*\),.*/\1/' "$run/metrics.jsonl" | head -n "$steps"
}

parity() { # NAME RECIPE STEPS TOLERANCE [OPTION...]: the loss of each of the first steps on the GPU beside the CPU's
    local name=$1 recipe=$2 steps=$3 tolerance=$4
    shift 4
    paste <(losses "$name-cpu" cpu "$recipe" "$steps" "$@") \
        <(losses "$name-gpu" cuda "$recipe" "$steps" --set train.precision=fp32 "$@") |
        awk -v steps="$steps" -v tolerance="$tolerance" '
            { d = ($2 - $1) / $1; d = d < 0 ? -d : d; if (d > worst) worst = d; n++ }
            END { printf "%d steps, largest relative difference %g, %g is allowed\n", n, worst, tolerance
                  exit !(n == steps && worst < tolerance) }'
}

repeats() { # the same weights every time
    local first hash
    for i in $(seq 1 "$REPEATS"); do
        hash=$(train repeat cuda chicago --set train.epochs=2 | hash_of) || return 1
        first=${first:-$hash}
        [ "$hash" = "$first" ] || { echo "run $i: $hash, the first $first"; return 1; }
    done
    echo "$REPEATS runs: $first"
}

resume() { # stopped after its first checkpoint and resumed in a new process: the same weights
    local whole halves pid code common=(--device cuda --json --quiet --set train.save=7)
    whole=$(train whole cuda chicago --set train.save=7 | hash_of) || return 1
    rm -rf "$out/runs/halves"
    "$temper" train "$root/recipes/chicago.yaml" --out "$out/runs/halves" "${common[@]}" &
    pid=$!
    until [ -n "$(ls -A "$out/runs/halves/checkpoints" 2>/dev/null)" ] || ! kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
    kill -TERM "$pid" 2>/dev/null
    wait "$pid"
    code=$?
    halves=$("$temper" train "$root/recipes/chicago.yaml" --out "$out/runs/halves" --resume "${common[@]}" | hash_of) || return 1
    echo "first half: exit $code; whole $whole, in halves $halves"
    [ "$code" = 75 ] && [ "$whole" = "$halves" ]
}

export -f train hash_of ops losses parity repeats resume
export temper tests root out REPEATS

# CUDA's libraries may lie in Python's packages alone.
if "$temper" devices | grep -q 'not used'; then
    LD_LIBRARY_PATH=$(python3 -c 'import glob, sysconfig
print(":".join(glob.glob(sysconfig.get_paths()["purelib"] + "/nvidia/*/lib")))' 2>/dev/null):${LD_LIBRARY_PATH:-}
    export LD_LIBRARY_PATH
fi
"$temper" devices --json >"$out/devices.json"
if ! "$temper" devices | grep -q '^cuda:0 '; then
    note gpu "skipped: $("$temper" devices | sed -n 's/^cuda  *//p')"
    exit 0
fi
note gpu "$("$temper" devices | sed -n 's/^cuda:0  *//p')"
mkdir -p "$out/runs"

# PyTorch needs a minute to start; it does so beside the checks and waits for the gate.
vs_torch=
if wants vs_torch; then
    if python3 -c 'import torch, h5py, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
        measure vs_torch.log 400 python3 "$root/benchmarks/vs_torch.py" --device cuda --together --scale 0.6 \
            --gate "$out/runs/gate" --temper "$temper" --out "$out/vs_torch.csv" &
        vs_torch=$!
    else
        note vs_torch "skipped: no PyTorch with CUDA, or no h5py"
    fi
fi
if wants check; then
    pids=()
    {
        check ops 150 env TEMPER_TEST_SCHEDULES="$REPEATS" bash -c ops
        s=$?
        check hashes 10 "$here/hashes.sh" "$root/tests/golden/kernel_hashes.txt" "$out/hashes.txt" && exit $s
    } & pids+=($!)
    { check parity-chicago 60 parity resident chicago 51 1e-3 --set train.epochs=3; } & pids+=($!)
    { check parity-streamed 60 parity streamed chicago 51 1e-3 --set train.epochs=3 --set data.resident_bytes=1000; } & pids+=($!)
    for recipe in movielens:movielens:40:1e-3 fashion-cnn:fashion_mnist:20:1e-2 fashion-resnet18:fashion_mnist:6:1e-2 \
        mnist-cnn:mnist:20:1e-2; do
        IFS=: read -r name file steps tolerance <<<"$recipe"
        part=parity-$name data=$DATA/$file.h5
        [ -f "$data" ] || { part=$part-stand-in data=$STAND_INS/$file.h5; }
        [ -f "$data" ] || { note "$part" "skipped: no $file.h5"; continue; }
        { check "$part" 100 parity "$name" "$name" "$steps" "$tolerance" --data "$data"; } & pids+=($!)
    done
    { check repeats 100 repeats; s=$?; check resume 30 resume && exit $s; } & pids+=($!)
    if command -v compute-sanitizer >/dev/null; then
        for tool in memcheck racecheck initcheck synccheck; do
            check "$tool" 150 compute-sanitizer --tool "$tool" --error-exitcode 1 "$tests" --gtest_brief=1 \
                --gtest_filter='*CudaOpCase.EveryImplementation*_0:*CudaOpCase.EveryImplementation*_1' & pids+=($!)
        done
    else
        note compute-sanitizer "skipped: not installed"
    fi
    for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
fi
touch "$out/runs/gate"
[ -z "$vs_torch" ] || wait "$vs_torch" || failed=1
if wants bench; then
    measure large.jsonl 70 "$temper" bench --device cuda --json --shapes "$root/benchmarks/shapes/large.txt" || failed=1
    if python3 -c 'import h5py' 2>/dev/null; then
        measure stall.json 60 python3 "$root/benchmarks/checkpoint_stall.py" --device cuda --temper "$temper" || failed=1
    else
        note stall "skipped: no h5py"
    fi
    rm -f "$out/quality.csv"
    for recipe in fashion-cnn fashion-resnet18; do
        [ -f "$DATA/fashion_mnist.h5" ] || { note "quality-$recipe" "skipped: no DATA/fashion_mnist.h5"; continue; }
        measure "quality-$recipe.log" 60 python3 "$root/benchmarks/quality.py" "recipes/$recipe.yaml" \
            --data "$DATA/fashion_mnist.h5" --metric accuracy --temper "$temper" --out "$out/quality.csv" || failed=1
    done
    measure products.jsonl 40 "$temper" bench --device cuda --json --precision tf32 \
        --shapes "$root/benchmarks/shapes/products.txt" || failed=1
    measure bench.jsonl 200 "$temper" bench --device cuda --json || failed=1
fi
rm -rf "$out/runs"
rm -rf "$out/csv"
mkdir "$out/csv"
check collect 10 "$root/benchmarks/collect.py" "$out" --out "$out/csv/results.csv" || failed=1
exit $failed
