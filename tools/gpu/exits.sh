#!/usr/bin/env bash
# The process must end quietly with the GPU open: normally, after an error, on Ctrl-C. Argument: a backend.
set -uo pipefail
opened="from core.registry import default_registry as r; b = r().backend('$1'); x = b.allocator.allocate(64)"
wrong=0
for end in "pass" "raise SystemExit(3)" "raise ValueError('on purpose')" \
    "import os, signal; os.kill(os.getpid(), signal.SIGINT)"; do
    said=$(python3 -c "$opened; $end" 2>&1); code=$?
    if grep -qiE "abort|context stack|cleanup|terminate" <<<"$said" || [ $code = 134 ]; then
        wrong=1; echo "$1, $end: exit code $code, says: $said"
    else
        echo "$1, $end: exit code $code, quiet"
    fi
done
exit $wrong
