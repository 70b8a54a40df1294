"""Counts and times what is served, for Prometheus: vLLM's names, our prefix."""

from __future__ import annotations

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from models.serving.async_engine import AsyncEngine
from models.serving.link.stream import Stream
from models.serving.live.check import CheckCounts

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Holds the metrics of one engine under the name of its model."""

    def __init__(self, engine: AsyncEngine, model: str) -> None:
        self.registry = CollectorRegistry()

        def labelled(kind: type[Histogram], name: str, text: str) -> Histogram:
            return kind(f"kernelyard:{name}", text, ["model_name"], registry=self.registry,
                        buckets=_SECONDS).labels(model)
        self._first = labelled(Histogram, "time_to_first_token_seconds",
                               "Seconds from a request to its first token")
        self._between = labelled(Histogram, "inter_token_latency_seconds",
                                 "Seconds between two tokens of a text")
        self._whole = labelled(Histogram, "e2e_request_latency_seconds",
                               "Seconds from a request to the end of a text")
        self._finished = Counter("kernelyard:request_success", "Texts that have ended, by reason",
                                 ["model_name", "finished_reason"], registry=self.registry)
        self._model = model
        self.registry.register(_EngineCollector(engine, model))
        engine.on_tokens = self.on_tokens

    def on_tokens(self, stream: Stream, index: int, tokens: int) -> None:
        """Note that a text has got tokens."""
        now = time.monotonic()
        last = stream.last
        if tokens:
            if index in last:
                self._between.observe((now - last[index]) / tokens)
            else:
                self._first.observe(now - stream.started)
            last[index] = now
        one = stream.output.outputs[index]
        if one.finished:
            self._whole.observe(now - stream.started)
            self._finished.labels(self._model, one.finish_reason).inc()

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _EngineCollector(Collector):
    """Reads the engine's own counts when they are asked for."""

    def __init__(self, engine: AsyncEngine, model: str) -> None:
        self._engine, self._model = engine, model

    def collect(self) -> Iterable[Metric]:
        state, facts = self._engine.state, self._engine.facts
        for name, text, value in (
                ("num_requests_running", "Sequences that are computed now", state.running),
                ("num_requests_waiting", "Sequences that wait", state.waiting),
                ("kv_cache_usage_perc", "Share of the KV cache's blocks in use",
                 state.used_blocks / facts.blocks),
                ("num_plans", "Plans that are kept, for each kind and size of step", state.plans),
                ("engine_up", "1 while the engine serves", int(self._engine.trouble is None))):
            gauge = GaugeMetricFamily(f"kernelyard:{name}", text, labels=["model_name"])
            gauge.add_metric([self._model], value)
            yield gauge
        stats = state.stats
        for name, text, value in (
                ("prompt_tokens", "Tokens of prompts that were computed", stats["prompt_tokens"]),
                ("generation_tokens", "Tokens that were generated", stats["new_tokens"]),
                ("engine_steps", "Steps that were computed", stats["steps"]),
                ("num_preemptions", "Sequences that gave their blocks to others",
                 stats["preemptions"]),
                ("prefix_cache_queries", "Blocks looked for in the prefix cache",
                 state.cache_queries),
                ("prefix_cache_hits", "Blocks found in the prefix cache", state.cache_hits)):
            yield self._counter(name, text, value)
        if state.check is not None:
            yield from self._checked(state.check)

    def _counter(self, name: str, text: str, value: float) -> Metric:
        counter = CounterMetricFamily(f"kernelyard:{name}", text, labels=["model_name"])
        counter.add_metric([self._model], value)
        return counter

    def _checked(self, check: CheckCounts) -> Iterable[Metric]:
        for name, text, value in (
                ("check_steps", "Steps that were checked", check.steps),
                ("check_steps_skipped", "Steps drawn for the check that were too large for it",
                 check.skipped),
                ("check_steps_failed", "Steps in which the check itself failed", check.failed)):
            yield self._counter(name, text, value)
        for name, text, found in (
                ("check_calls", "Calls of kernels that were compared", check.calls),
                ("check_wrong", "Calls in which the kernel was wrong by the op's definition",
                 {**dict.fromkeys(check.calls, 0), **check.wrong})):
            counter = CounterMetricFamily(f"kernelyard:{name}", text,
                                          labels=["model_name", "op", "kernel"])
            for (op, kernel), calls in found.items():
                counter.add_metric([self._model, op, kernel], calls)
            yield counter
