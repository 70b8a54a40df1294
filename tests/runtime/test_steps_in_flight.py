"""Steps in flight: what a step gave is not read from memory that the next one writes."""

import models
from core.runtime.executor import Executor
from models import SamplingParams


def test_a_later_step_may_overwrite_everything(monkeypatch):
    prompts, params = [[5, 6, 7], [8, 9]], SamplingParams(temperature=0, max_tokens=9, logprobs=2)
    with models.load_engine("stories-llama3", max_context=64, max_num_seqs=2) as engine:
        expected = [o.outputs[0] for o in engine.generate(prompts, params)]
        monkeypatch.setattr(engine.executor._backend, "run_ahead", 2, raising=False)
        real = Executor.submit

        def submit(self, batch):
            pending = real(self, batch)
            for plan in self.steps.made:
                for arena in plan.arenas.values():
                    arena.poison()  # as a step queued behind this one may
            return pending
        monkeypatch.setattr(Executor, "submit", submit)
        found = [o.outputs[0] for o in engine.generate(prompts, params)]
    assert found == expected and all(o.finish_reason == "length" for o in found)
