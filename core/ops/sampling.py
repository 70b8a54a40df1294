"""argmax and sample: define the step from logits to the next token of each sequence.

Random numbers are counter based (Philox4x32-10, Salmon et al. 2011, "Parallel random numbers: as
easy as 1, 2, 3"): token p of a sequence depends on its seed and p alone, so every backend, batch
and chunking samples alike.
"""

from collections.abc import Callable

import numpy as np

from core.errors import DtypeError, OpError, ShapeError
from core.ir.examples import ErrorExample, Example, ExampleInputs, spec
from core.ir.op import Op
from core.ir.tolerance import EXACT, Tolerance
from core.tensor.tensor import Array

NAN, INF = np.nan, np.inf
#: what stands where in a row of 1,000 numbers that has no probabilities, or only one
ODD_ROWS: dict[str, dict[int, float]] = {
    "NaN": {500: NAN}, "+Inf": {500: INF}, "NaN after +Inf": {3: INF, 9: NAN},
    "+Inf after NaN": {3: NAN, 9: INF}, "two +Inf": {400: INF, 77: INF},
    "two NaN": {400: NAN, 999: NAN}, "-Inf alone": dict.fromkeys(range(1000), -INF),
    "NaN in -Inf": {**dict.fromkeys(range(1000), -INF), 7: NAN},
    "all +Inf": dict.fromkeys(range(1000), INF),
    "one number": {i: -INF for i in range(1000) if i != 123}}

_MULTIPLY, _WEYL = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)


def philox_uniform(seed: tuple[int, int], counter: int) -> float:
    """Return one number in [0, 1) with 24 bits: first word of Philox4x32-10 of (counter, 0, 0,
    0)."""
    mask = 0xFFFFFFFF
    x = [counter & mask, 0, 0, 0]
    key = [seed[0] & mask, seed[1] & mask]
    for _ in range(10):
        a, b = _MULTIPLY[0] * x[0], _MULTIPLY[1] * x[2]
        x = [(b >> 32) ^ x[1] ^ key[0], b & mask, (a >> 32) ^ x[3] ^ key[1], a & mask]
        key = [(k + w) & mask for k, w in zip(key, _WEYL, strict=True)]
    return (x[0] >> 8) * 2.0**-24


class Argmax(Op):
    """Computes ids[s] = index of the largest logit, the first of equal ones. NaN counts as larger
    than +Inf, and a row of -Inf alone gives 0: the id is always one of 0..V-1."""

    name = "argmax"
    signature = "logits A[S,V] -> out i32[S]"
    dtype_cases = ({"A": "f32"}, {"A": "f16"}, {"A": "bf16"})
    tolerance = EXACT

    def reference(self, logits: Array) -> Array:
        return np.array([np.argmax(row) for row in logits], np.int32)

    def examples(self) -> list[Example]:
        def ties(r: ExampleInputs) -> dict[str, Array | None]:
            logits = r.normal(3, 1000)
            logits[:, [77, 400, 999]] = 9.0
            return {"logits": logits}

        def ends(r: ExampleInputs) -> dict[str, Array | None]:
            logits = r.normal(3, 151936)
            logits[[0, 1, 2], [151935, 0, 100000]] = 9.0
            return {"logits": logits}

        def rows(s: int, v: int) -> Example:
            return Example(f"S{s}_V{v}", lambda r: {"logits": r.normal(s, v)}, {})
        return [rows(0, 8), rows(1, 512), rows(1, 128256), rows(17, 321), rows(2, 1),
                Example("ties", ties, {}), Example("ends", ends, {}),
                Example("odd", lambda r: {"logits": _odd_logits(r)}, {})]

    def error_examples(self) -> list[ErrorExample]:
        return [ErrorExample({"logits": spec("f32[4]")}, {}, ShapeError, "2 axes")]


class Sample(Op):
    """Sample one token a sequence. The steps and their order are those of Hugging Face's generate:

    1. repetition: logits of tokens marked in `seen` are divided (if > 0) or multiplied by
       `penalty`;
    2. temperature 0 takes the largest logit and skips the rest; otherwise logits /= temperature;
    3. top_k > 0 keeps logits not below the k-th largest;
    4. top_p < 1 keeps tokens for which the probability of all likelier ones is below top_p (of
       equal ones the lower index counts as likelier);
    5. min_p keeps tokens with at least min_p × the largest probability;
    6. the first token, by index, at which the running sum exceeds u × the kept total, where u is
       `philox_uniform(seeds[s], positions[s])`.

    Where the largest logit after step 1 or 2 is NaN, +Inf or -Inf there are no probabilities, and
    where steps 3 to 5 keep nothing there is nothing to choose from: then the token is argmax's. So
    it is always one of 0..V-1. Single logits of -Inf are never sampled. The sampled token is marked
    in `seen`. `positions` is the position that the new token will have. Penalties keep logits
    within float32's range.
    """

    name = "sample"
    signature = ("logits A[S,V], temperature f32[S], top_k i32[S], top_p f32[S], min_p f32[S], "
                 "penalty f32[S], seeds i32[S,2], positions i32[S], seen i8[S,V]? "
                 "-> seen, out i32[S]")
    dtype_cases = ({"A": "f32"}, {"A": "f16"}, {"A": "bf16"})
    tolerance = Tolerance(0, 0, "the examples keep u away from every boundary of the cumulative "
                          "sum by more than rounding", exact=True)

    def reference(self, logits: Array, temperature: Array, top_k: Array, top_p: Array, min_p: Array,
                  penalty: Array, seeds: Array, positions: Array, seen: Array | None,
                  ) -> tuple[Array | None, Array]:
        out = np.empty(len(logits), np.int32)
        for s in range(len(logits)):
            row = logits[s].copy()
            if seen is not None:
                repeated = seen[s] != 0
                row[repeated] = np.where(row[repeated] > 0, row[repeated] / penalty[s],
                                         row[repeated] * penalty[s])
            if temperature[s] != 0:
                row = row / temperature[s]
            greedy = temperature[s] == 0 or not np.isfinite(row.max())
            out[s] = np.argmax(row) if greedy else _pick(
                row, int(top_k[s]), top_p[s], min_p[s],
                philox_uniform((int(seeds[s, 0]), int(seeds[s, 1])), int(positions[s])))
            if seen is not None:
                seen[s, out[s]] = 1
        return seen, out

    def examples(self) -> list[Example]:
        # name, temperature, top_k, top_p, min_p, penalty
        settings = (("greedy", 0.0, 0, 1.0, 0.0, 1.0), ("plain", 1.0, 0, 1.0, 0.0, 1.0),
                    ("cold", 0.3, 0, 1.0, 0.0, 1.0), ("top_k", 0.8, 5, 1.0, 0.0, 1.0),
                    ("top_k_1", 1.0, 1, 1.0, 0.0, 1.0), ("top_p", 1.2, 0, 0.7, 0.0, 1.0),
                    ("min_p", 1.0, 0, 1.0, 0.2, 1.0), ("penalty", 0.0, 0, 1.0, 0.0, 1.8),
                    ("all", 0.9, 20, 0.9, 0.05, 1.3))
        alike = [_example(f"{name}_S{s}_V{v}", lambda r, s=s, v=v: _levels(r, s, v),  # type: ignore[misc]
                          [each], seen=each[-1] != 1)
                 for name, *each in settings for s, v in ((1, 321), (5, 64))]
        # settings outside of their ranges; what they do follows from the steps above
        outside = [[0.7, 0, 0.0, 0, 1], [0.7, 0, 1, 2.0, 1], [NAN, 0, 1, 0, 1], [INF, 0, 1, 0, 1],
                   [1e-38, 0, 1, 0, 1], [-1.0, 0, 1, 0, 1], [-0.5, 3, 0.9, 0.1, 1],
                   [0.7, 0, NAN, 0, 1], [0.7, 0, 1, NAN, 1], [0.7, -3, 1, 0, 1],
                   [0.7, 4, -1.0, 0, 1], [0.7, 0, 1, -1.0, 1], [0.7, 99, 1, 0, 1],
                   [0.7, 0, 1, 0, 1e-30]]
        mixed = [each for _, *each in settings]
        return [*alike, _example("empty", lambda r: _levels(r, 0, 8), [[1, 0, 1, 0, 1]]),
                *(_example(f"mixed_S{s}_V{v}{'_seen' * seen}",
                           lambda r, s=s, v=v: _levels(r, s, v), mixed, seen=seen)  # type: ignore[misc]
                  for s, v, seen in ((9, 321, True), (64, 1000, False), (256, 64, True),
                                     (9, 40000, False))),
                _example("mixed_normal_S9_V32000", lambda r: r.normal(9, 32000, scale=3), mixed),
                *(_example(f"odd_{name}", _odd_logits, [each], seen=each[-1] != 1)
                  for name, *each in settings if name in ("greedy", "cold", "top_k_1", "all")),
                _example("outside", lambda r: r.normal(len(outside), 50, scale=30), outside),
                _example("outside_seen", lambda r: r.normal(len(outside), 50, scale=30), outside,
                         seen=True),
                _example("never_minus_inf", _two_left, [[50.0, 0, 1, 0, 1]])]

    def error_examples(self) -> list[ErrorExample]:
        f, i = spec("f32[2]"), spec("i32[2]")
        good = {"logits": spec("f32[2,9]"), "temperature": f, "top_k": i, "top_p": f, "min_p": f,
                "penalty": f, "seeds": spec("i32[2,2]"), "positions": i}
        return [ErrorExample({**good, "top_k": f}, {}, DtypeError, "top_k"),
                ErrorExample({**good, "seeds": i}, {}, ShapeError, "seeds"),
                ErrorExample({**good, "seen": spec("i8[2,8]")}, {}, ShapeError, "seen"),
                ErrorExample({**good, "penalty": None}, {}, OpError, "penalty")]


def _example(name: str, logits: Callable[[ExampleInputs], Array], settings: list[list[float]], *,
             seen: bool = False) -> Example:
    """Sample each row of `logits` with the next of `settings`: temperature, top_k, top_p, min_p and
    penalty."""
    def make(r: ExampleInputs) -> dict[str, Array | None]:
        x = logits(r)
        t, k, p, m, penalty = np.array([settings[s % len(settings)] for s in range(len(x))],
                                       np.float64).reshape(-1, 5).T
        return {"logits": x, "temperature": t, "top_k": k.astype(np.int32), "top_p": p, "min_p": m,
                "penalty": penalty, "seeds": r.ints(-2**31, 2**31 - 1, len(x), 2),
                "positions": r.ints(0, 4096, len(x)),
                "seen": np.asarray(r.rng.random(x.shape) < 0.2, np.int8) if seen else None}
    return Example(name, make, {})


def _levels(r: ExampleInputs, s: int, v: int) -> Array:
    """Make logits of a few spread-out levels rather than normals: probabilities stay far from each
    other's cumulative boundaries in every dtype, and ties are common."""
    logits = r.ints(-6, 7, s, v).astype(np.float64)
    logits[:, r.ints(0, v, 1)[0]] += 4
    return logits


def _odd_logits(r: ExampleInputs) -> Array:
    """Make a row of normals with the numbers of each of ODD_ROWS in it."""
    logits = r.normal(len(ODD_ROWS), 1000)
    for row, odd in zip(logits, ODD_ROWS.values(), strict=True):
        row[list(odd)] = list(odd.values())
    return logits


def _two_left(r: ExampleInputs) -> Array:
    """Make 40 rows in which two tokens are not forbidden."""
    logits = np.full((40, 5), -INF)
    logits[:, [1, 3]] = 0
    return logits


def _pick(row: Array, top_k: int, top_p: float, min_p: float, u: float) -> int:
    if 0 < top_k < len(row):
        row = np.where(row < np.sort(row)[-top_k], -np.inf, row)
    p = np.exp(row - row.max())
    p /= p.sum()
    if top_p < 1:
        order = np.argsort(-p, kind="stable")
        before = np.concatenate([[0.0], np.cumsum(p[order])[:-1]])
        p[order[before >= top_p]] = 0
    p[p < min_p * p.max()] = 0
    running = np.cumsum(p)
    if not running[-1] > 0:
        return int(np.argmax(row))
    return int(np.searchsorted(running, u * running[-1], side="right"))
