#!/usr/bin/env bash
# On a GPU host, from the repository root: build, test and time the CUDA backends. Logs go to
# $OUT/logs.tgz, the report of the test run to $OUT/gpu_report.json, after every stage.
#   [BACKENDS="cuda_cupy cuda_pycuda"] tools/gpu/run.sh [matrix] [sanitizer] [models] [memory] [zoo] [large]
#       [speeds] [codes] [seven] [prompts] [batch] [contexts] [mixed] [profile] [one] [threads] [load]
#       [bench ARGUMENTS... | tune ARGUMENTS...]
# The first four, with tests/gpu/test_gpu_speed.py, are what `pytest --kernelyard-gpu-report
# tests/gpu_report.json` does, in parallel where that disturbs nothing. The matrix goes first: it says which
# sources the report is of, and what the report had of others is dropped. LIMIT is the most seconds of a
# stage; what it has done by then is kept.
# `speeds` to `profile` are figures: tools/performance/measure.py prints each with peer, ratio, share of the
# limit, card, verdict and ledger, and leaves it in $OUT/figures.jsonl, which tools/performance/page.py takes
# in. LIMIT holds for each backend. PEERS, as models.bench --peers takes them, are timed beside the first
# one; a peer that is not installed is skipped with its reason. LINE: options of models.bench in place of
# the stage's own. `one` is one sequence by engine and Session, beside the checkout BASE if that is set.
# `load` is a server with 32 and 128 users; it needs the wheels of the extra `serve`, and httpx.
# ONLY is pytest's -k for the tests of a stage.
# On a host without a network it installs what is missing from the wheels in .gpu/.
set -uo pipefail
out=/tmp/kernelyard-gpu kept=${OUT:-/tmp/kernelyard-gpu}
limit=${LIMIT:-500}
read -ra backends <<<"${BACKENDS:-cuda_cupy cuda_pycuda}"
named=("${backends[@]/#/--kernelyard-backend=}")
mkdir -p "$out" "$kept"
start=$SECONDS
if ! [ -d .gpu/site ]; then
    python3 -m pip install -q --no-index --no-deps --no-compile --target .gpu/site .gpu/*.whl
fi
python3 -m pip install -q --no-index --no-deps --no-build-isolation --upgrade --target .gpu/site \
    . ./backends/cpu_numpy ./backends/cuda_cupy ./backends/cuda_pycuda 2>&1 | tail -3
export PYTHONPATH=$PWD/.gpu/site
# what is not tested now keeps its part, of an earlier run on this machine too
[ -e "$out/gpu_report.json" ] || cp tests/gpu_report.json "$out/"
cd .gpu  # so that the installed packages are tested, not the checkout
echo "== setup $((SECONDS - start)) s"
python3 -m models.run --list-backends

report() {  # NAME ARGUMENTS...: pytest into the report; an interrupted run reports what it has done
    timeout -s INT "$limit" python3 -m pytest -p core.conformance.plugin "${named[@]}" -q \
        -p no:cacheprovider -p no:benchmark --kernelyard-gpu-report "$out/gpu_report.json" \
        ${ONLY:+-k "$ONLY"} "${@:2}" \
        >"$out/$1.log" 2>&1
    grep -aE "^(FAILED|ERROR)|^E  .*(assert|Error)" "$out/$1.log" | cut -c1-220 | head -40
    tail -n 1 "$out/$1.log"
}
tests() {  # NAME ARGUMENTS...: the same, of files in tests/; other libraries' warnings are no errors
    report "$1" -c ../pyproject.toml --rootdir .. -o filterwarnings=default "${@:2}"
}
figures() {  # STAGE: what was measured stays, whatever ends the rest
    local peers=${PEERS-llama.cpp}
    for backend in "${backends[@]}"; do
        timeout "$limit" python3 ../tools/performance/measure.py "$1" --backend "$backend" \
            --peers "$peers" ${LINE:+--line "$LINE"} --figures "$out/figures.jsonl" 2>&1 \
            | tee -a "$out/$1.log"
        peers=
    done
}

while [ $# -gt 0 ]; do
    stage=$1; shift
    case $stage in
    matrix) report matrix --pyargs core.conformance -n 12 ;;
    models) OPENBLAS_NUM_THREADS=4 tests models ../tests/gpu/test_gpu_models.py \
        ../tests/gpu/test_gpu_rounding.py -n 6 ;;
    memory) tests memory ../tests/gpu/test_gpu_memory.py ../tests/gpu/test_gpu_codes.py ;;
    sanitizer) tests sanitizer ../tests/gpu/test_gpu_sanitizer.py -n 4 ;;
    zoo)  # bad kernels, each in processes of its own: one that hangs the GPU makes others wait
        tests zoo ../tests/gpu/test_gpu_zoo.py -n 2 ;;
    large)  # not into the report, whose cells are of the other examples
        timeout "$limit" python3 -m pytest -p core.conformance.plugin --pyargs core.conformance \
            "${named[@]}" --kernelyard-large -q -n 3 -p no:cacheprovider -p no:benchmark -k matches \
            >"$out/large.log" 2>&1
        tail -n 1 "$out/large.log" ;;
    speeds|codes|seven|prompts|batch|contexts|mixed|profile) figures "$stage" ;;
    one)  # one sequence: engine and Session, beside the checkout BASE
        timeout "$limit" python3 ../tools/serving/e6.py --backend "${backends[0]}" --rounds 3 \
            --model random:llama3.2-1b:bf16 --prompt 128 ${BASE:+--old "$BASE"} 2>&1 \
            | tee "$out/one.log" ;;
    threads)  # threads that share a model, and forks after it ran
        timeout "$limit" python3 ../tools/gpu/threads.py "${backends[@]}" 2>&1 | tee "$out/threads.log" ;;
    load)  # a server with many users; LOAD: arguments of load.py
        # shellcheck disable=SC2086  # the words of $LOAD are separate arguments
        timeout "$limit" python3 ../tools/gpu/load.py --backend "${backends[0]}" ${LOAD:-} 2>&1 \
            | tee "$out/load.log" ;;
    bench)
        timeout "$limit" python3 -m models.bench --backend "${backends[0]}" "$@" 2>&1 \
            | tee "$out/bench.log" | tail -90
        set -- ;;
    tune)
        timeout "$limit" python3 ../tools/gpu/tune.py "$@" 2>&1 | tee "$out/tune.log" | tail -60
        set -- ;;
    esac
    echo "== $stage $((SECONDS - start)) s"
    tar -C "$out" -czf /tmp/logs.tgz . && mv /tmp/logs.tgz "$kept/"
    cp "$out/gpu_report.json" "$out/figures.jsonl" "$kept/" 2>/dev/null
done
