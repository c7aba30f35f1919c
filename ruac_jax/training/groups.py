"""Parameter groups: which parts of network and attack share a learning rate."""

from typing import Any, Literal

from flax import nnx

from ruac_jax.adapters.lora import LoRAParam
from ruac_jax.config import OptimizerConfig

Group = Literal["encoder", "adapter", "decoder", "head", "attack", "frozen"]
GROUPS: tuple[Group, ...] = ("encoder", "adapter", "decoder", "head", "attack")
_GROUP_OF_MODEL_PART: dict[str, Group] = {
    "image_encoder": "encoder",
    "sam_prompt_encoder": "decoder",
    "sam_mask_decoder": "decoder",
    "no_mem_embed": "decoder",
    "head": "head",
    "memory_encoder": "frozen",  # serves the deformation attack as it came from the checkpoint (section B.3)
}


def group_of(path: tuple[Any, ...], variable: nnx.Variable, rates: OptimizerConfig) -> Group:
    """The parameter group of one leaf; groups with a learning rate of zero and constants count as frozen."""
    group: Group = "attack" if path[0] == "attack" else _GROUP_OF_MODEL_PART[str(path[1])]
    if isinstance(variable, LoRAParam):
        group = "adapter"
    trained = isinstance(variable, nnx.Param) and group != "frozen" and getattr(rates, group) > 0
    return group if trained else "frozen"
