"""The op vocabulary: holds a small file a family. Importing it registers them in
`core.ir.op.OPS`."""

from core.ir.op import register_op
from core.ops.advance import Advance, PickIds, PutTokens
from core.ops.attention import Attention, KvCacheWrite
from core.ops.elementwise import Add, Softmax, SwiGLU
from core.ops.embedding import Embedding
from core.ops.fused_linear import AddNormGateUp, QkvLinear
from core.ops.fused_norm import AddRmsNorm, GateUpSwiGLU
from core.ops.fused_quantized import AddNormQuantizedGateUp, QkvQuantized
from core.ops.fused_rope import RopeKvWrite
from core.ops.linear import Linear
from core.ops.logits import AdjustLogits, LogProbs
from core.ops.norm import RmsNorm
from core.ops.quantized.block_linear import BlockLinear
from core.ops.quantized.embedding import BlockEmbedding, QuantizedEmbedding
from core.ops.quantized_linear import QuantizedLinear
from core.ops.rope import Rope
from core.ops.sampling import Argmax, Sample

for _op in (Embedding(), RmsNorm(), Linear(), QuantizedLinear(), BlockLinear(), Rope(),
            KvCacheWrite(), Attention(), Softmax(), Add(), SwiGLU(), Argmax(), Sample(), Advance(),
            AddRmsNorm(), GateUpSwiGLU(), AddNormGateUp(), QkvLinear(), QkvQuantized(),
            AddNormQuantizedGateUp(), RopeKvWrite(), PickIds(), PutTokens(), AdjustLogits(),
            LogProbs(), QuantizedEmbedding(), BlockEmbedding()):
    register_op(_op)
