"""Prints the speeds that a GPU report holds, a line each: speeds.py REPORT"""

import json
import sys
from pathlib import Path


def main(report: Path) -> None:
    for r in json.loads(report.read_text())["speeds"]:
        print(f"{r['backend']:12s} {r['shape']:15s} {r['quantize'] or r['stored']:5s} prompt "
              f"{r['prompt']:5d}: decode {r['decode_tokens_per_s']:7.1f}/s, "
              f"{r['bandwidth_share']:4.0%} of {r['bandwidth_bytes_per_s'] / 1e12:.2f} TB/s, host "
              f"{r['host_step_s'] * 1e6:.0f} µs; prefill {r['prefill_tokens_per_s']:8.0f}/s; "
              f"{r['ledger']} {r['verdict']}; {r['device'].rsplit('NVIDIA ', 1)[-1]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
