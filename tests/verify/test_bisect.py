"""Any single kernel made wrong is named: by the cross-check, and by bisection."""

import numpy as np
import pytest
from suspect_backend import with_suspect

import models
from core.conformance.cases import Case, cells
from core.errors import CheckError
from core.ir.fusion import FusedOp
from core.ir.op import OPS
from core.plugins.registry import default_registry
from core.runtime.run_op import single_op_plan
from core.runtime.step import Sampling
from core.verify.bisect import Outcome, bisect, smallest
from core.verify.capsules.capsule import Capsule
from core.verify.capsules.recorder import Recorder
from core.verify.capsules.replay import replay
from core.verify.crosscheck import CrossCheck
from core.verify.policies import parse_policy

default_registry()  # brings the plugins' ops into OPS
PROMPT = [1, 40, 50, 60, 70, 80]
#: what a model must be for its graph to hold the op
LOADED = {"quantized_linear": {"quantize": "int8"}, "qkv_quantized": {"quantize": "int8"},
          "add_norm_quantized_gate_up": {"quantize": "int8"}}


