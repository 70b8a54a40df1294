"""Lists the bad kernels: what is wrong, and what a tool that names one must say."""

import os
from dataclasses import dataclass, field

import numpy as np

from zoo import faults, kernels
from zoo.kernels import attention, norm, overflow, raising, with_scratch

CRASH_S = 3  # seconds that a kernel may take in the process apart


@dataclass(frozen=True)
class Bad:
    """Holds one bad kernel.

    what    the table's words for it
    says    a regular expression for the right reason
    model   `stories`, or one of `run.SHAPES`
    tokens  of the prompt, and `new` ones
    fatal   tools need --isolate
    why     by tool, why it cannot name the kernel
    """

    what: str
    bind: object
    says: str
    op: str = "rms_norm"
    hooks: dict = field(default_factory=dict)
    model: str = "stories"
    tokens: int = 5
    new: int = 3
    fatal: bool = False
    why: dict = field(default_factory=dict)

    @property
    def dtypes(self):
        names = {"rms_norm": "AW", "linear": "AWO"}.get(self.op, "AC")
        return dict.fromkeys(names, "f32")


forever = kernels.endless
BROKEN = RuntimeError("cannot compile")
WHERE = r", at .*zoo.(bad|faults|kernels)\.py:\d+"
NO_LINEAR = {"op": "linear"}
UNSTEADY = "other bits|differ in bits|is wrong|WRONG"
ONE_ULP = "one ulp is within the op's budget"
ONE_CALL = "one call from fresh inputs is right"
ONE_SEQUENCE = "one sequence does not show it; `serve --check` does"
ONE_ORDER = "one sequence's blocks lie in order"
IN_A_RUN = ("--check", "verify --blame", "replay")
MODES = r"changed NumPy's error state"
EVERY = ("conformance", "--check", "verify --blame", "replay")

BAD = {
    # raise in each place
    "supports_raises": Bad("`supports` raises", norm(), f"supports raised KeyError: 'Q'{WHERE}",
                           hooks={"supports": lambda call: call.dims["Q"]}),
    "supports_exits": Bad("`supports` raises SystemExit", norm(),
                          f"supports raised SystemExit: 0{WHERE}",
                          hooks={"supports": raising(SystemExit(0))}),
    "workspace_raises": Bad("`workspace` raises", with_scratch(lambda w, out: None),
                            f"workspace raised RuntimeError: cannot compile{WHERE}",
                            hooks={"workspace": raising(BROKEN)}),
    "packs_raises": Bad("`packs` raises", kernels.linear, "packs raised RuntimeError",
                        hooks={"packs": raising(BROKEN), "prepare": print}, **NO_LINEAR),
    "prepare_raises": Bad("`prepare` raises", kernels.linear, "prepare raised RuntimeError",
                          hooks={"packs": lambda call: {"weight": faults.scratch(call)},
                                 "prepare": raising(BROKEN)}, **NO_LINEAR),
    "bind_raises": Bad("`bind` raises", lambda x, weight, out, *, eps: raising(BROKEN)(),
                       f"bind raised RuntimeError: cannot compile{WHERE}"),
    "bind_exits": Bad("`bind` raises SystemExit",
                      lambda x, weight, out, *, eps: raising(SystemExit(0))(),
                      f"bind raised SystemExit: 0{WHERE}"),
    "launch_raises": Bad("the launch raises", norm(before=raising(ValueError("boom"))),
                         f"launch raised ValueError: boom{WHERE}"),
    "launch_exits": Bad("the launch raises SystemExit(0)", norm(before=raising(SystemExit(0))),
                        f"launch raised SystemExit: 0{WHERE}"),
    "late_raises": Bad("the launch raises from call 31 on", norm(before=faults.late),
                       f"launch raised ValueError: a table is full{WHERE}", new=8,
                       why={"replay": ONE_CALL}),
    # wrong types
    "supports_empty": Bad("`supports` returns an empty text", norm(),
                          r"supports\(\) returned ''", hooks={"supports": lambda call: ""}),
    "workspace_type": Bad("`workspace` returns a number", with_scratch(lambda w, out: None),
                          r"workspace\(\) returned 8, expected a TensorSpec",
                          hooks={"workspace": lambda call: 8}),
    "packs_type": Bad("`packs` returns a list", kernels.linear,
                      r"packs\(\) returned \[\], expected a TensorSpec by parameter name",
                      hooks={"packs": lambda call: [], "prepare": print}, **NO_LINEAR),
    "bind_none": Bad("`bind` returns None", lambda x, weight, out, *, eps: None,
                     f"bind returned None, expected a callable without arguments{WHERE}"),
    # the process ends, or never does
    "exit_bind": Bad("`bind` calls os._exit(0)", lambda x, weight, out, *, eps: os._exit(0),
                     "ended Python with exit code 0 in bind", fatal=True),
    "exit_launch": Bad("the launch calls os._exit(0)", norm(before=lambda: os._exit(0)),
                       "ended Python with exit code 0", fatal=True),
    "segfault": Bad("segmentation fault", norm(before=kernels.crash),
                    f"killed by signal 11 .SIGSEGV.{WHERE}", fatal=True),
    "segfault_17": Bad("segmentation fault at 17 rows", norm(
        lambda x, weight, out: len(out) == 17 and kernels.crash()),
        f"killed by signal 11 .SIGSEGV.{WHERE}", fatal=True, tokens=17),
    "segfault_bind": Bad("segmentation fault in `bind`",
                         lambda x, weight, out, *, eps: kernels.crash(),
                         f"killed by signal 11 .SIGSEGV. in bind{WHERE}", fatal=True),
    "abort": Bad("abort", norm(before=os.abort), f"killed by signal 6 .SIGABRT.{WHERE}",
                 fatal=True),
    **{f"endless_{hook}": Bad(f"`{hook}` never returns", bind, f"took over {CRASH_S} s in {hook}",
                              hooks=hooks, fatal=True, op=op)
       for hook, bind, hooks, op in (
           ("supports", norm(), {"supports": forever}, "rms_norm"),
           ("workspace", with_scratch(lambda w, out: None), {"workspace": forever}, "rms_norm"),
           ("prepare", kernels.linear, {"packs": lambda call: {"weight": faults.scratch(call)},
                                        "prepare": forever}, "linear"),
           ("bind", lambda x, weight, out, *, eps: kernels.spin(), {}, "rms_norm"))},
    "endless": Bad("endless loop", norm(before=kernels.spin), f"took over {CRASH_S} s{WHERE}",
                   fatal=True),
    "endless_rows": Bad("endless loop beyond 4 rows", norm(
        lambda x, weight, out: len(out) > 4 and kernels.spin()), f"took over {CRASH_S} s{WHERE}",
        fatal=True),
    # memory that is not its own
    "overflow_4": Bad("writes 4 bytes beyond its output", norm(overflow(4)),
                      r"[Ww]rote \d+ bytes", fatal=True),
    "overflow_64": Bad("writes 64 bytes beyond its output", norm(overflow(64)),
                       r"[Ww]rote \d+ bytes", fatal=True),
    "overflow_4096": Bad("writes 4,096 bytes beyond its output", norm(overflow(4096)),
                         r"[Ww]rote \d+ bytes", fatal=True),
    "overflow_far": Bad("writes 64 bytes, 4,096 bytes beyond its output",
                        norm(overflow(64, far=4096)), r"[Ww]rote \d+ bytes", fatal=True),
    "overflow_scratch": Bad("writes 64 bytes beyond its workspace", with_scratch(
        lambda w, out: kernels.beyond(w, 64)), r"[Ww]rote \d+ bytes beyond `workspace`",
        hooks={"workspace": faults.scratch}, fatal=True),
    "overflow_cache": Bad("kv_cache_write writes 64 bytes beyond the cache", kernels.write_cache(
        lambda cache, rows, slots: kernels.beyond(cache, 64)),
        r"[Ww]rote \d+ bytes beyond `cache`", op="kv_cache_write", fatal=True),
    "reads_on": Bad("reads 4 bytes beyond its input", norm(faults.reads_on), "is wrong|WRONG|NaN"),
    "underflow_4": Bad("writes 4 bytes before its output", norm(overflow(4, before=True)),
                       r"[Ww]rote \d+ bytes", fatal=True),
    "input": Bad("changes its input", norm(lambda x, weight, out: x.__imul__(2)),
                 "changed (its )?input `x`"),
    "weight": Bad("changes its weight", norm(lambda x, weight, out: weight.__setitem__(0, 7)),
                  f"changed its (input|weight) `weight`|destination is read-only{WHERE}"),
    "cache_row": Bad("attention changes the cache", attention(after=faults.first_row),
                     "changed (its )?input `cache`", op="attention"),
    "packed": Bad("changes its prepacked weight", kernels.spoil_pack,
                  "changed its prepacked weight `weight`", hooks={
                      "packs": lambda call: {"weight": call.inputs["weight"]},
                      "prepare": kernels.repack}, **NO_LINEAR),
    "other_row": Bad("kv_cache_write changes another row",
                     kernels.write_cache(kernels.halve_before), "WRONG|is wrong",
                     op="kv_cache_write"),
    "other_block": Bad("kv_cache_write writes another block's row",
                       kernels.write_cache(kernels.next_block), "WRONG|is wrong",
                       op="kv_cache_write"),
    # what belongs to all
    "attrs": Bad("`supports` changes an attribute", norm(), "supports raised TypeError",
                 hooks={"supports": faults.set_eps}),
    "seterr": Bad("the launch changes NumPy's error state",
                  norm(before=lambda: np.seterr(all="raise")), MODES),
    "seterr_bind": Bad("`bind` changes NumPy's error state", lambda x, weight, out, *, eps:
                       np.seterr(all="raise") and norm()(x, weight, out, eps=eps), f"bind {MODES}"),
    "rounding": Bad("the launch changes how the processor rounds", norm(faults.upward),
                    "changed how the processor rounds", fatal=True),
    # not a function of its inputs
    "race_ulp": Bad("a race of one ulp", norm(faults.ulp), "a race, or hidden|differ in bits",
                    why={"--check": ONE_ULP, "verify --blame": ONE_ULP}),
    "race_many": Bad("a race of many ulps", norm(faults.many_ulps), UNSTEADY),
    "state": Bad("hidden state", norm(faults.hidden_state), UNSTEADY),
    "nan_60": Bad("NaN after 60 calls", norm(faults.nan_later), "NaN|nan|other bits|differ in bits",
                  new=12, why={"replay": ONE_CALL}),
    "first_weight": Bad("keeps the weight of its first call", norm(first=True),
                        "is wrong|WRONG|launch raised ValueError: operands",
                        why={"replay": ONE_CALL}),
    "early": Bad("computes with its input of when it was bound", faults.early, "is wrong|WRONG"),
    "memo": Bad("keeps the result of its first launch", kernels.memo(lambda n, out: n),
                "is wrong|WRONG|other bits"),
    "memo_shape": Bad("keeps the result of its first call of a shape",
                      kernels.memo(lambda n, out: out.shape), "is wrong|WRONG|other bits"),
    "third_bind": Bad("wrong when bound for the third time", faults.third_bind,
                      "is wrong|WRONG|breaks"),
    "late": Bad("returns before its thread has written the last row", kernels.late,
                "is wrong|WRONG|NaN"),
    "scratch": Bad("reads scratch that it did not fill",
                   with_scratch(lambda w, out: out[-1].__iadd__(w[0])), "is wrong|WRONG|NaN",
                   hooks={"workspace": faults.scratch}),
    "flaky": Bad("wrong in one call of 50", norm(faults.flaky),
                 f"{UNSTEADY}|a race, or hidden", new=20,
                 why={"replay": ONE_CALL}),
    "late_again": Bad("its thread writes the output of the call before once more",
                      norm(faults.later), "is wrong|WRONG|NaN|[Ww]rote|changed"),
    "old_buffer": Bad("writes into the output of its first bind", faults.old_buffer,
                      "is wrong|WRONG|NaN|[Ww]rote"),
    # wrong at some shapes
    "one_token": Bad("wrong for one token of several heads a group",
                     attention(spoil=faults.one_token), "is wrong|WRONG", op="attention",
                     model="groups of 7"),
    "group_3": Bad("wrong head where 3 share one",
                   attention(heads=lambda h, group: (h + (group == 3)) // group), "is wrong|WRONG",
                   op="attention", model="groups of 3"),
    "beyond_128": Bad("misses a key beyond 128 tokens", attention(lambda seen: seen > 128),
                      "is wrong|WRONG", op="attention", tokens=130),
    "beyond_2000": Bad("misses a key beyond 2,000 tokens", attention(lambda seen: seen > 2000),
                       "is wrong|WRONG", op="attention", tokens=2002, model="long"),
    "block_border": Bad("misses a key at the end of a block",
                        attention(lambda seen: seen % 16 == 0 and seen > 64), "is wrong|WRONG",
                        op="attention", tokens=78),
    "group_7": Bad("wrong head where 7 share one",
                   attention(heads=lambda h, group: (h + (group == 7)) // group), "is wrong|WRONG",
                   op="attention", model="groups of 7"),
    "head_256": Bad("half the head where d is 256", attention(size=lambda d: min(d, 128)),
                    "is wrong|WRONG", op="attention", model="d of 256"),
    "last_head": Bad("wrong in the last head", attention(spoil=faults.last_head), "is wrong|WRONG",
                     op="attention"),
    "far_row": Bad("wrong beyond 2 blocks, beside other sequences", attention(spoil=faults.far_row),
                   "is wrong|WRONG", op="attention", why=dict.fromkeys(IN_A_RUN, ONE_SEQUENCE)),
    "order": Bad("wrong where a sequence's blocks are not in order", attention(spoil=faults.order),
                 "is wrong|WRONG", op="attention", tokens=40,
                 why=dict.fromkeys(IN_A_RUN, ONE_ORDER)),
    "odd_rows": Bad("wrong for odd numbers of rows", norm(
        lambda x, weight, out: len(out) % 2 and len(out) > 1 and out[-1].fill(1)),
        "is wrong|WRONG"),
    "half_sums": Bad("rounds to 16 bits", norm(lambda x, weight, out: np.copyto(
        out, out.astype(np.float16))), "is wrong|WRONG"),
    "aligned": Bad("takes its weight to begin at a multiple of 64 bytes", faults.aligned,
                   "is wrong|WRONG|breaks `weights in a file's memory map"),
    "last_row": Bad("forgets the last of many rows",
                    norm(lambda x, weight, out: len(out) > 4 and out[-1].fill(0)),
                    "is wrong|WRONG", tokens=7),
    "second_sequence": Bad("wrong for the second of several sequences", faults.second_sequence,
                           "is wrong|WRONG", op="attention",
                           why=dict.fromkeys(IN_A_RUN, ONE_SEQUENCE))}
