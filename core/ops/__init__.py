"""The op vocabulary: one small file a family. Importing it registers them in `core.op.OPS`."""

from core.op import register_op
from core.ops.attention import Attention, KvCacheWrite
from core.ops.elementwise import Add, Softmax, SwiGLU
from core.ops.embedding import Embedding
from core.ops.fused import AddRmsNorm, GateUpSwiGLU
from core.ops.fused_cache import RopeKvWrite
from core.ops.fused_products import AddNormGateUp, ThreeLinear
from core.ops.fused_quantized import AddNormQuantizedGateUp, ThreeQuantized
from core.ops.linear import Linear
from core.ops.norm import RmsNorm
from core.ops.quantized import QuantizedLinear
from core.ops.rope import Rope
from core.ops.sampling import Argmax, Sample
from core.ops.step import Advance

for _op in (Embedding(), RmsNorm(), Linear(), QuantizedLinear(), Rope(), KvCacheWrite(),
            Attention(), Softmax(), Add(), SwiGLU(), Argmax(), Sample(), Advance(), AddRmsNorm(),
            GateUpSwiGLU(), AddNormGateUp(), ThreeLinear(), ThreeQuantized(),
            AddNormQuantizedGateUp(), RopeKvWrite()):
    register_op(_op)
