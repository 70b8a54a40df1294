#!/usr/bin/env bash
# compute-sanitizer's memcheck over the conformance cases with small inputs; run by tools/gpu/run.sh.
# Reports every out-of-bounds or misaligned access of our kernels, and the tests' own verdicts.
set -uo pipefail
compute-sanitizer --tool memcheck --target-processes all --error-exitcode 9 \
    python3 -m pytest --pyargs core.conformance --backend cuda_cupy -q -p no:cacheprovider \
    -p no:benchmark -p no:xdist -k "${1:-not 5632 and not 2048 and not 128256 and not 512}" 2>&1
echo "memcheck exit code $?"
