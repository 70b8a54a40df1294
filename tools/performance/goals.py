"""Holds the goals that figures are held to: tokens a second on a card, or multiples of llama.cpp's
speed on a CPU."""

from __future__ import annotations

from performance.records import Record

LLAMA = ("llama3.2-1b", "bf16")
#: card -> figure -> (model, weights, sequences, prompt) -> tokens/s of cuda_cupy; None: any prompt
#: of at most SHORT tokens
GOALS: dict[str, dict[str, dict[tuple[str, str, int, int | None], float]]] = {
    "H100": {
        "decode": {
            ("tinyllama-1.1b", "f32", 1, None): 680, ("tinyllama-1.1b", "int8", 1, None): 2000,
            (*LLAMA, 1, None): 1140, ("llama3.2-1b", "int8", 1, None): 1900,
            ("llama3.2-1b", "int4", 1, None): 2700, ("qwen2.5-0.5b", "bf16", 1, None): 2000,
            ("llama2-7b", "bf16", 1, None): 215,
            **{(*LLAMA, n, 128): goal for n, goal in (
                (8, 6_000), (32, 20_000), (64, 36_000), (128, 60_000))},
            **{(*LLAMA, n, 1024): goal for n, goal in (
                (8, 6_300), (32, 19_400), (64, 29_800), (128, 40_700), (256, 49_700))}},
        "prefill": {(*LLAMA, 1, n): goal for n, goal in (
            (128, 60_000), (2048, 250_000), (8192, 200_000), (16384, 150_000))},
        "mixed": {(*LLAMA, 256, 0): 31_000}},
    "H200": {
        "decode": {
            ("tinyllama-1.1b", "f32", 1, None): 955, ("tinyllama-1.1b", "int8", 1, None): 2400,
            (*LLAMA, 1, None): 1500, ("qwen2.5-0.5b", "bf16", 1, None): 2300,
            ("llama2-7b", "bf16", 1, None): 310, ("llama2-7b", "int8", 1, None): 520}}}
SHORT = 128
#: CPU backend -> weights -> what decode and prefill ask for, as multiples of llama.cpp's speed
RATIOS = {"cpu_numpy": {"f32": (1.0, 1.3)},
          "cpu_numba": dict.fromkeys(("f32", "bf16", "int8", "int4"), (1.2, 1.0))}


def judged(record: Record) -> str:
    """Return a record's goal and whether it is reached; empty where it has none."""
    if record.backend == "cuda_cupy" and record.layers is None:
        table = next((t for card, t in GOALS.items() if card in record.card), {})
        subject = (record.model, record.weights, record.sequences)
        found = table.get(record.figure, {})
        goal = found.get((*subject, record.prompt)) or (
            found.get((*subject, None)) if record.prompt <= SHORT else None)
        if goal:
            return f"{goal:,} {'reached' if record.tokens_per_s >= goal else 'missed'}"
    ratios = RATIOS.get(record.backend, {}).get(record.weights)
    if ratios and record.sequences == 1 and record.peer and record.figure in ("decode", "prefill"):
        ratio = ratios[record.figure == "prefill"]
        reached = record.tokens_per_s >= ratio * record.peer[1]
        return f"{ratio:.1f} × peer {'reached' if reached else 'missed'}"
    return ""
