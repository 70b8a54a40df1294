"""Measures an engine with many sequences: decode alone, and a workload of mixed requests.

What is timed is checked in the same run: kernels of steps of as many sequences, on a model of two
layers, are held to the float64 reference.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from core.installed.registry import Registry
from core.ir.graph import Graph
from core.ops.linear import Product
from core.plan.plan import Plan
from core.runtime.step import BLOCK_SIZE
from core.tensor.tensor import Array
from core.verify.crosscheck import CrossCheck
from core.verify.policies import REFERENCE
from models.analysis.peers import Workload
from models.engine.config import EngineConfig
from models.engine.options import EngineOptions
from models.engine.pool import open_engine
from models.serving.engine import Engine
from models.serving.params import SamplingParams

#: nano-vllm's bench.py: requests, least and most tokens of prompts and of outputs, temperature
NANO = (256, 100, 1024, 0.6)
Kernels = set[tuple[str, str]]  # (op, kernel)
#: sequences of a checked step, where more are timed, as float64 is slow: of up to 64, and of more
CHECKED = 24, 72
HEAD = "lm_head"  # the node of a graph that makes logits
LONG = 200    # tokens of the longest checked prompt of a workload


def measure_decode(engine: Engine, count: int, prompt: int, tokens: int, *, weights: int,
                   bandwidth: float | None) -> tuple[dict[str, Any], Workload, Kernels]:
    """Return one row: `count` sequences of `prompt` random tokens, each with `tokens` new ones.
    Prompts are timed first, with one token each, and then decoding, in which all take part from its
    first step to its last. Also returns what was asked and generated, and the kernels of the steps
    that were timed.

    weights    bytes of the matrices that a step reads
    bandwidth  bytes a second that the device reads, None if unknown: for the share of the roofline,
               at which a step reads the matrices and every sequence's keys and values once
    """
    rng = random.Random(count)
    prompts = {f"bench-{count}-{i}": _ids(rng, prompt, engine.vocab_size) for i in range(count)}
    found, run = dict[str, list[int]](), engine.stats.steps

    def ask(new: int) -> None:
        params = SamplingParams(max_tokens=new, ignore_eos=True, temperature=0.0)
        for name, ids in prompts.items():  # a salt of each run: its prompts alone are found
            engine.add_request(name, ids, params, salt=f"{name}-{run}", streams=False)

    def step() -> None:
        found.update((o.request_id, o.outputs[0].token_ids) for o in engine.step() if o.finished)
    start = time.perf_counter()
    ask(1)
    while engine.has_unfinished_requests:
        step()
    first = time.perf_counter() - start
    ask(tokens)  # the prefix cache has the prompts: so all decode from here to the end
    while any(not r.output_ids for r in [*engine.scheduler.waiting, *engine.scheduler.running]):
        step()
    filled, before = time.perf_counter(), engine.stats.new_tokens
    waited, steps = engine.stats.wait_s, engine.stats.steps
    timed = dict[int, Plan]()
    while engine.has_unfinished_requests:
        step()
        plan = engine.executor.steps.made[-1]
        timed[id(plan)] = plan
    seconds = time.perf_counter() - filled
    made, steps = engine.stats.new_tokens - before, engine.stats.steps - steps
    block = engine.executor.steps.kv_bytes // engine.pool.blocks
    read = weights + count * (prompt + tokens / 2) / engine.pool.block_size * block
    work = Workload(list(prompts.values()), [tokens] * count, 0.0, [found[n] for n in prompts],
                    first + seconds, first)
    return {"sequences": count, "prompt": prompt, "tokens": tokens,
            "prefill_tokens_per_s": count * prompt / first,
            "decode_tokens_per_s": made / seconds,
            **_steps(engine, seconds, steps, waited, read, bandwidth),
            "ledger": engine.ledger.hash}, work, _kernels(timed.values())


def measure_nano(engine: Engine, bandwidth: float | None) -> tuple[dict[str, Any], Workload]:
    """Return one row for nano-vllm's workload: requests of random lengths, all there at once. Also
    returns what was asked and generated.

    bandwidth  bytes a second that the device reads, None if unknown: for the share of the roofline,
               at which every step reads the matrices, and every new token its sequence's keys and
               values, once
    """
    prompts, params = _nano(engine, 1, 8)
    engine.generate(prompts, params)  # to make the plans of steps of all sizes
    prompts, params = _nano(engine, 0, 1)
    waited, steps = engine.stats.wait_s, engine.stats.steps
    start = time.perf_counter()
    outputs = engine.generate(prompts, params)
    seconds, steps = time.perf_counter() - start, engine.stats.steps - steps
    tokens = [o.outputs[0].token_ids for o in outputs]
    made = sum(map(len, tokens))
    plans = engine.executor.steps
    seen = sum(len(t) * (len(p) + len(t) / 2) for p, t in zip(prompts, tokens, strict=True))
    read = (steps * read_matrices(plans.made[-1].graph, engine.executor.weights.arrays)
            + seen * plans.kv_bytes / engine.pool.blocks / engine.pool.block_size)
    work = Workload(prompts, [p.max_tokens or 0 for p in params], NANO[3], tokens, seconds)
    return {"sequences": len(prompts), "prompt_tokens": sum(map(len, prompts)), "tokens": made,
            "seconds": seconds, "tokens_per_s": made / seconds,
            **_steps(engine, seconds, steps, waited, read / steps, bandwidth),
            "preemptions": engine.stats.preemptions, "ledger": engine.ledger.hash}, work


def _nano(engine: Engine, seed: int, part: int,
          ) -> tuple[list[list[int]], list[SamplingParams]]:
    """Make the requests of nano-vllm's workload; each generates this part of its tokens."""
    count, least, most, temperature = NANO
    rng = random.Random(seed)
    prompts = [[rng.randint(0, min(10000, engine.vocab_size - 1))
                for _ in range(rng.randint(least, most))] for _ in range(count)]
    return prompts, [SamplingParams(max_tokens=-(-rng.randint(least, most) // part),
                                    ignore_eos=True, temperature=temperature, seed=i)
                     for i in range(count)]


def _steps(engine: Engine, seconds: float, steps: int, waited: float, read: float,
           bandwidth: float | None) -> dict[str, Any]:
    """Return what each of `steps` took, and read, on the average; `waited` is what the engine had
    waited for results, in seconds, before the first."""
    second = seconds / steps
    return {"step_s": second,
            "host_step_s": (seconds - (engine.stats.wait_s - waited)) / steps,
            "read_bytes": read, "bandwidth_bytes_per_s": bandwidth,
            "roofline_share": read / second / bandwidth if bandwidth else None}


def check_engine(engine: Engine, registry: Registry, lengths: Sequence[int],
                 temperature: float = 0.0) -> tuple[str, bool, Kernels]:
    """Hold the kernels of a few steps, with prompts of these lengths, to the float64 reference.
    Returns the verdict, whether all were right, and the kernels of every step of this engine."""
    check, start = CrossCheck(registry, [REFERENCE]), time.perf_counter()
    rng, params = random.Random(3), SamplingParams(max_tokens=2, ignore_eos=True,
                                                   temperature=temperature)
    with engine.executor.observed(check):
        engine.generate([_ids(rng, n, engine.vocab_size) for n in lengths], params)
    verdict = (f"{check.tally.calls} kernel calls of steps of {len(lengths)} sequences checked "
               f"against float64 in {time.perf_counter() - start:.0f} s, {check.tally.found}")
    return verdict, check.tally.ok, _kernels(engine.executor.steps.made)

def _kernels(plans: Iterable[Plan]) -> Kernels:
    return {(e.op, e.kernel) for plan in plans for e in plan.ledger.entries}


def bench_engine(config: Callable[[int | None], EngineConfig], counts: Sequence[int], prompt: int,
                 tokens: int, *, nano: bool, done: list[Workload]) -> Iterator[dict[str, Any]]:
    """Yield a row for each count of sequences, and one for nano-vllm's workload if asked for.

    config  settles the model, with all of its layers or fewer
    done    gets what was asked and generated
    """
    # the sequence that ends last is alone in its steps
    asked = [(_short(n), 0.0) for n in _checked(counts)]
    if nano:  # every row samples; kernels differ by rows, and by the mean length of prompts
        asked += [(lengths, NANO[3]) for lengths in (
            _short(NANO[0]), list(range(1, CHECKED[0] + 1)), [LONG] * 4)]
    few, checked = config(2), list[tuple[str, bool, Kernels]]()
    # a check compares the whole KV cache, so that has room for what is checked and no more: with a
    # block more for each sequence, without which not all of them would be admitted at once
    room = max(-(-few.context // BLOCK_SIZE),
               *(sum(1 - (-(n + 2) // BLOCK_SIZE) for n in lengths) for lengths, _ in asked))
    with _open(few, max([*counts, NANO[0] if nano else 1]), room) as small:
        for lengths, temperature in asked:
            checked.append(check_engine(small, small.executor.policy.registry, lengths,
                                        temperature))
    whole = config(None)
    backend = whole.policy.primary
    with _open(whole, max([*counts, NANO[0] if nano else 1])) as engine:
        bandwidth = backend.read_bandwidth()
        for count in counts:
            measure_decode(engine, count, prompt, 4, weights=0, bandwidth=None)  # to warm up
            weights = read_matrices(engine.executor.steps.made[-1].graph,
                                    engine.executor.weights.arrays)
            row, work, used = measure_decode(engine, count, prompt, tokens, weights=weights,
                                             bandwidth=bandwidth)
            done.append(work)
            yield {**row, **_verdict(checked, used), "device": backend.describe(),
                   **product_flops(engine.executor.steps.made[-1].graph)}
        if nano:
            row, work = measure_nano(engine, bandwidth)
            done.append(work)
            yield {**row, **_verdict(checked, _kernels(engine.executor.steps.made)),
                   "device": backend.describe()}


def _verdict(checked: Sequence[tuple[str, bool, Kernels]], used: Kernels) -> dict[str, Any]:
    """Return the verdict of a checked run with these kernels."""
    every = set[tuple[str, str]]().union(*(kernels for _, _, kernels in checked))
    if used <= every and all(ok for _, ok, _ in checked):
        return {"verdict": "; ".join(verdict for verdict, _, _ in checked), "ok": True}
    missing = ", ".join(kernel for _, kernel in sorted(used - every)) or "a wrong one"
    return {"verdict": f"timed with kernels that were not checked: {missing}", "ok": False}


def _checked(counts: Sequence[int]) -> list[int]:
    """Return of how many sequences steps are checked where those of `counts` are timed. The last
    steps may be of fewer, since not all sequences begin in one."""
    few, many = CHECKED
    return sorted({1, *(min(n, few) for n in counts or [few]), *(
        min(n, many) for n in counts if n > 64)})


def _short(count: int) -> list[int]:
    """Return lengths of `count` prompts."""
    return [1 + i % 5 for i in range(count)]


def _open(config: EngineConfig, most: int, blocks: int | None = None) -> Engine:
    return open_engine(config, config.weights(), EngineOptions(max_num_seqs=most, kv_blocks=blocks))


def read_matrices(graph: Graph, arrays: Mapping[str, Array]) -> int:
    """Count the bytes of the weight matrices that a step reads, codes and scales where
    quantised."""
    read = {v.root.name for n in graph.nodes if isinstance(n.op, Product)
            for v in n.inputs.values() if v is not None and v.kind == "weight"}
    return sum(arrays[name].nbytes for name in read if arrays[name].ndim > 1)


def product_flops(graph: Graph) -> dict[str, int]:
    """Count the operations of a graph's products for each row: `row_flops` in the layers, and
    `head_flops`, which a prompt needs for its last row alone."""
    found = {"row_flops": 0, "head_flops": 0}
    for node in graph.nodes:
        if isinstance(node.op, Product) and (x := node.inputs["x"]) is not None:
            specs = {name: v.spec if v else None for name, v in node.inputs.items()}
            what = "head_flops" if node.name == HEAD else "row_flops"
            found[what] += node.op.cost(specs, node.attrs).flops // int(x.spec.shape[0])
    return found


def _ids(rng: random.Random, count: int, vocab_size: int) -> list[int]:
    return [rng.randrange(vocab_size) for _ in range(count)]
