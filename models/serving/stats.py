"""Counts what an engine has done."""

from __future__ import annotations

from dataclasses import dataclass

from models.serving.step import Step


@dataclass
class EngineStats:
    """Hold counts since the engine was opened; `wait_s` is the time that it waited for results, in
    seconds."""

    steps: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0
    preemptions: int = 0
    wait_s: float = 0.0

    def add(self, step: Step) -> None:
        """Count a step that is complete."""
        self.steps += 1
        self.new_tokens += len(step.sampling)
        if step.preempted or step.prompt_tokens:
            self.preemptions += len(step.preempted)
            self.prompt_tokens += step.prompt_tokens
