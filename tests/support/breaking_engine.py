"""Opens engines that fail, in the process that serving gives them."""

import ctypes

import models
from core.errors import NoKernelError, OptionError


def refuse():
    """Fail as loading a model does."""
    raise OptionError("this model cannot be loaded")


def die():
    """End the process without a word."""
    import os
    os._exit(7)


def break_once():
    """Open an engine whose 20th step after its warm-up fails; it can be used on."""
    engine = models.load_engine("stories-llama2", max_num_seqs=4, kv_blocks=64)
    run, steps = engine.executor.submit, []

    def submit(batch):
        steps.append(batch)
        if len(steps) == 20 + 2:
            raise NoKernelError("no kernel takes the node of this test")
        return run(batch)
    engine.executor.submit = submit
    return engine


def hold():
    """Open an engine whose third step lets no other thread of its process run, and never ends."""
    engine = models.load_engine("stories-llama2", max_num_seqs=4, kv_blocks=64)
    run, steps = engine.executor.submit, []

    def submit(batch):
        steps.append(batch)
        if len(steps) == 3:
            ctypes.PyDLL(None).sleep(100)  # the first line that the fault handler finds
        return run(batch)
    engine.executor.submit = submit
    return engine
