#!/usr/bin/env bash
# compute-sanitizer over the conformance cases with small inputs; run by tools/gpu/run.sh.
#   sanitize.sh BACKEND memcheck|racecheck [PATTERN of pytest -k]
# Reports every out-of-bounds or misaligned access of our kernels (memcheck) or unordered access to
# shared memory (racecheck), and the tests' own verdicts.
set -uo pipefail
small="not 5632 and not 2048 and not 128256 and not 512"
compute-sanitizer --tool "$2" --target-processes all --error-exitcode 9 \
    python3 -m pytest --pyargs core.conformance --backend "$1" -q -p no:cacheprovider \
    -p no:benchmark -p no:xdist -k "${3:-$small}" 2>&1
echo "$1 $2 exit code $?"
