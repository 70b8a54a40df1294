"""The speeds that a GPU report holds, a line each: speeds.py REPORT"""

import json
import sys
from pathlib import Path


def main(report: Path) -> None:
    for row in json.loads(report.read_text())["speeds"]:
        weights = row["quantize"] or row["stored"]
        print(f"{row['backend']:12s} {row['shape']:15s} {weights:5s} prompt {row['prompt']:5d}: decode "
              f"{row['decode_tokens_per_s']:7.1f}/s, {row['bandwidth_share']:4.0%} of "
              f"{row['bandwidth_bytes_per_s'] / 1e12:.2f} TB/s, host {row['host_step_s'] * 1e6:.0f} µs; "
              f"prefill {row['prefill_tokens_per_s']:8.0f}/s; {row['ledger']} {row['verdict']}; "
              f"{row['device'].rsplit('NVIDIA ', 1)[-1]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
