#!/usr/bin/env bash
# On a GPU host, from the repository root: build, test and time the CUDA backends. Logs go to
# $OUT/logs.tgz, the report of a test run to $OUT/gpu_report.json.
#   [BACKENDS="cuda_cupy cuda_pycuda"] tools/gpu/run.sh [votes] [mixed] [exits] [shapes] [context] [memory] [warm] [report] [speeds] [conformance] [large] [parity] [sanitize] [profile] [bench ARGUMENTS... | tune ARGUMENTS...]
# On a host without a network it installs what is missing from the wheels in .gpu/.
set -uo pipefail
out=/tmp/kernelyard-gpu kept=${OUT:-/tmp/kernelyard-gpu}
read -ra backends <<<"${BACKENDS:-cuda_cupy cuda_pycuda}"
named=("${backends[@]/#/--backend=}")
mkdir -p "$out" "$kept"
start=$SECONDS
if ! [ -d .gpu/site ]; then
    python3 -m pip install -q --no-index --no-deps --no-compile --target .gpu/site .gpu/*.whl
fi
python3 -m pip install -q --no-index --no-deps --no-build-isolation --upgrade --target .gpu/site \
    . ./backends/cpu_numpy ./backends/cuda_cupy ./backends/cuda_pycuda 2>&1 | tail -3
export PYTHONPATH=$PWD/.gpu/site
cd .gpu  # so that the installed packages are tested, not the checkout
echo "== setup $((SECONDS - start)) s"
python3 -m models.run --list-backends

while [ $# -gt 0 ]; do
    stage=$1; shift
    case $stage in
    conformance)
        timeout 400 python3 -m pytest --pyargs core.conformance "${named[@]}" -q -n 12 \
            --maxfail 60 -p no:cacheprovider -p no:benchmark -rs >"$out/conformance.log" 2>&1
        grep -aE "^(FAILED|ERROR)" "$out/conformance.log" | cut -c1-220 | head -70
        tail -2 "$out/conformance.log" ;;
    report)  # what CI goes by: tests/gpu_report.json
        cp ../tests/gpu_report.json "$out/"  # backends that are not tested now keep their part
        timeout 400 python3 -m pytest --pyargs core.conformance "${named[@]}" -q -n 12 \
            -p no:cacheprovider -p no:benchmark --gpu-report "$out/gpu_report.json" \
            >"$out/conformance.log" 2>&1
        tail -2 "$out/conformance.log" ;;
    speeds)  # into the report, each with its verdict and goal; what is done by the limit is kept
        [ -f "$out/gpu_report.json" ] || cp ../tests/gpu_report.json "$out/"
        timeout -s INT "${SPEED_LIMIT:-400}" python3 -m pytest ../tests/test_gpu_speed.py "${named[@]}" -q -c ../pyproject.toml \
            --rootdir .. -p no:cacheprovider -p no:benchmark --gpu-report "$out/gpu_report.json" \
            >"$out/speeds.log" 2>&1
        grep -aE "^(FAILED|ERROR)|assert .*>=" "$out/speeds.log" | cut -c1-200
        tail -1 "$out/speeds.log"
        python3 ../tools/gpu/speeds.py "$out/gpu_report.json" ;;
    shapes)  # logits and tokens at real shapes: freely, and node by node against float64
        for model in tinyllama-1.1b:f32:2 llama3.2-1b:bf16:2 qwen2.5-0.5b:bf16:2; do
            timeout 200 python3 -m models.verify "${backends[@]}" cpu_numpy reference --model "random:$model" \
                --prompt-ids "$(seq -s, 1 40)" --max-new-tokens 4 >"$out/shape-$model.log" 2>&1
            echo "$model: exit code $?"; tail -4 "$out/shape-$model.log"
        done ;;
    context)  # decode at 4,000 tokens against 100
        for prompt in 100 4000; do
            timeout 200 python3 -m models.bench --backend "${backends[0]}" --shape llama3.2-1b --stored bf16 \
                --prompt $prompt --tokens 100 --repeat 3 --json >"$out/context$prompt.json"
            grep -E '"prompt"|decode_tokens|host_step|verdict' "$out/context$prompt.json" \
                | tee -a "$out/context.log"
        done ;;
    memory)  # against models.plan
        timeout 200 python3 ../tools/gpu/memory.py "${backends[0]}" random:llama3.2-1b:bf16 \
            random:tinyllama-1.1b:f32 random:qwen2.5-0.5b:bf16 2>&1 | tee "$out/memory.log" | tail -5 ;;
    warm)  # a second start must compile nothing
        export XDG_CACHE_HOME=$(mktemp -d)
        for start in first second; do
            python3 -m models.run --backend "${backends[0]}" --max-new-tokens 8 </dev/null 2>"$out/warm.log"
            echo "$start start: says compiling $(grep -c compiling "$out/warm.log") times;" \
                "$(find "$XDG_CACHE_HOME" -name '*.cubin' | wc -l) kernels on disk"
        done | tee "$out/warm-starts.log"
        unset XDG_CACHE_HOME ;;
    large)
        timeout 200 python3 -m pytest --pyargs core.conformance "${named[@]}" --large -q -n 3 \
            -p no:cacheprovider -p no:benchmark -k matches >"$out/large.log" 2>&1
        tail -2 "$out/large.log" ;;
    parity)
        timeout 300 python3 ../tools/gpu/parity.py "${backends[@]}" 2>&1 | tee "$out/parity.log" | tail -25 ;;
    sanitize)  # accesses out of bounds, then races in shared memory; side by side, as each is slow
        for backend in "${backends[@]}"; do for tool in memcheck racecheck; do
            timeout 280 ../tools/gpu/sanitize.sh "$backend" $tool \
                >"$out/sanitize-$backend-$tool.log" 2>&1 &
        done; done
        wait
        tail -n 4 "$out"/sanitize-*.log ;;
    votes)  # every op and dtype: who agrees with the definition and with whom
        timeout 500 python3 ../tools/gpu/votes.py cpu_numpy "${backends[@]}" 2>&1 \
            | tee "$out/votes.log" | tail -60 ;;
    mixed)  # one forward pass of two backends in one context; all must give cpu_numpy's tokens
        for model in stories-llama2 stories-llama3 stories-qwen2; do
            timeout 200 python3 -m models.verify cpu_numpy cuda_cupy cuda_pycuda \
                "cuda_cupy+attention=cuda_pycuda" "cuda_pycuda+linear=cuda_cupy" \
                "cuda_pycuda,cuda_cupy" --model $model --dtype f32 --max-new-tokens 100 \
                >"$out/mixed-$model.log" 2>&1
            echo "$model: exit code $?"; tail -12 "$out/mixed-$model.log"
        done ;;
    exits)
        for backend in "${backends[@]}"; do ../tools/gpu/exits.sh "$backend"; done 2>&1 | tee "$out/exits.log" ;;
    profile)  # what each kind of kernel costs
        for backend in "${backends[@]}"; do for what in "tinyllama-1.1b" "tinyllama-1.1b --quantize int8" \
            "llama3.2-1b --stored bf16" "qwen2.5-0.5b --stored bf16"; do
            # shellcheck disable=SC2086  # the words of $what are separate arguments
            COLUMNS=150 timeout 100 python3 -m models.bench --backend "$backend" --repeat 2 --profile \
                --shape $what 2>&1 | tee -a "$out/profile.log" | grep -vE "^ *$"
        done; done ;;
    bench)
        timeout 560 python3 -m models.bench --backend "${backends[0]}" "$@" 2>&1 | tee "$out/bench.log" | tail -90
        set -- ;;
    tune)
        timeout 560 python3 ../tools/gpu/tune.py "$@" 2>&1 | tee "$out/tune.log" | tail -60
        set -- ;;
    esac
    echo "== $stage $((SECONDS - start)) s"
    tar -C "$out" -czf /tmp/logs.tgz . && mv /tmp/logs.tgz "$kept/"
    cp "$out/gpu_report.json" "$kept/" 2>/dev/null
done
