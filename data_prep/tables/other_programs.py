"""The tensor names of other programs for their tables of token ids to experts, in .safetensors files.

All of them are [vocab, top_k] per layer and called tid2eid, as in DeepSeek-V4. The source of each name:
- deepseek_v4_hf: transformers, models/deepseek_v4/modeling_deepseek_v4.py, DeepseekV4HashRouter: a buffer of int64.
- deepseek: DeepSeek-V4, inference/model.py, Gate: an int32 parameter; the released weights hold int64 under
  layers.{i}.ffn.gate.tid2eid, the name that transformers' conversion_mapping.py and torchtitan read.
- megatron: Megatron-LM, as converters and tests of its hash routing name it: an int32 buffer of the router,
  decoder.layers.{i}.mlp.router.tid2eid. Megatron-LM saves torch files: load ours with load_state_dict(strict=False).
- torchtitan: torchtitan/models/deepseek_v4/state_dict_adapter.py: layers.{i}.moe.router.tid2eid, int64; the adapter
  writes it as float32 under DeepSeek's name, so whole floats are read too.
"""

import re
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TableFormat:
    """How a program names and stores the table of layer i."""

    name: str  # of the tensor; {} stands for the layer's number
    dtype: type

    def tensor_name(self, layer: int) -> str:
        return self.name.format(layer)

    def layer(self, tensor_name: str) -> int | None:
        """Return the layer whose table has this name; None for another tensor."""
        found = re.fullmatch(re.escape(self.name).replace(r"\{\}", r"(\d+)"), tensor_name)
        return int(found[1]) if found else None


FORMATS = {
    "deepseek_v4_hf": TableFormat("model.layers.{}.mlp.gate.tid2eid", np.int64),
    "deepseek": TableFormat("layers.{}.ffn.gate.tid2eid", np.int64),
    "megatron": TableFormat("decoder.layers.{}.mlp.router.tid2eid", np.int32),
    "torchtitan": TableFormat("layers.{}.moe.router.tid2eid", np.int64),
}
