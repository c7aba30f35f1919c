"""The one table between this project's parameters and SAM2's tensors: names and axis orders, both ways.

Our modules carry SAM2's attribute names, so a rule per kind of leaf is enough; nothing here knows a size.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ruac_jax.heads.hypernetwork import SAM2_PREFIX
from ruac_jax.weights import abstract_model, leaves

LeafPath = tuple[str | int, ...]
Shape = tuple[int, ...]


class Rule(NamedTuple):
    """How one kind of leaf is called and laid out in PyTorch.

    Attributes:
      kind: what the rule is for, as shown in errors.
      path: regular expression that the whole dotted path of our leaf has to match.
      torch: SAM2's name, with the groups of `path`.
      axes: our axes in PyTorch's order; empty: any number of axes, order kept.
    """

    kind: str
    path: str
    torch: str
    axes: Shape


# The first match counts; a rule with axes applies only to leaves of that many axes.
LEAF_RULES = (
    Rule("transposed convolution", r"(sam_mask_decoder\.output_upscaling\.\d+)\.kernel", r"\1.weight", (2, 3, 0, 1)),
    Rule("linear", r"(.+)\.kernel", r"\1.weight", (1, 0)),
    Rule("convolution", r"(.+)\.kernel", r"\1.weight", (3, 2, 0, 1)),
    Rule("normalisation scale", r"(.+)\.scale", r"\1.weight", (0,)),
    Rule("embedding", r"(.+)\.embedding", r"\1.weight", (0, 1)),
    Rule("position map", r"(image_encoder\.trunk\.pos_embed(?:_window)?)", r"\1", (0, 3, 1, 2)),
    Rule("as it is", r"(.+)", r"\1", ()),
)

# Our heads stand beside the decoder, PyTorch's inside it.
HYPERNETWORK_PREFIX = SAM2_PREFIX
EVIDENTIAL_PREFIX = "sam_mask_decoder.ur_ern_head."
WEIBULL_PREFIX = "sam_mask_decoder.pixel_bndl."
MODULE_RULES = (
    ("head.output_hypernetworks_mlps.", HYPERNETWORK_PREFIX),
    ("head.ur_ern_head.", EVIDENTIAL_PREFIX),
    ("head.", WEIBULL_PREFIX),
)

CLASS_BIAS = f"{WEIBULL_PREFIX}class_bias"


class Entry(NamedTuple):
    """One of our leaves and the tensor it corresponds to.

    Attributes:
      path: the leaf's path in the model's state.
      shape: its shape here.
      torch_name: its name in PyTorch.
      torch_shape: its shape in PyTorch.
      axes: our axes in PyTorch's order.
    """

    path: LeafPath
    shape: Shape
    torch_name: str
    torch_shape: Shape
    axes: Shape


def dotted(path: LeafPath) -> str:
    """Writes a leaf's path as PyTorch would: `("a", 0, "b")` becomes `"a.0.b"`."""
    return ".".join(str(part) for part in path)


def entry(path: LeafPath, shape: Shape) -> Entry:
    """Looks one leaf up in the table."""
    name = dotted(path)
    for rule in LEAF_RULES:
        if len(rule.axes) in (0, len(shape)) and (match := re.fullmatch(rule.path, name)):
            break
    axes = rule.axes or tuple(range(len(shape)))
    torch_name = match.expand(rule.torch)
    for ours, theirs in MODULE_RULES:
        if torch_name.startswith(ours):
            torch_name = theirs + torch_name.removeprefix(ours)
            break
    return Entry(path, shape, torch_name, tuple(shape[axis] for axis in axes), axes)


def table(shapes: Mapping[LeafPath, Shape]) -> dict[str, Entry]:
    """Looks all leaves of a model up.

    Args:
      shapes: shape of every leaf by its path.

    Returns:
      The entries by PyTorch name.

    Raises:
      ValueError: two leaves would have one name.
    """
    entries: dict[str, Entry] = {}
    for path, shape in shapes.items():
        found = entry(path, shape)
        if found.torch_name in entries:
            raise ValueError(
                f"{dotted(path)} and {dotted(entries[found.torch_name].path)} are both {found.torch_name} in PyTorch"
            )
        entries[found.torch_name] = found
    return entries


def table_of(variant_name: str, head_name: str, head_settings: Mapping[str, Any] | None = None) -> dict[str, Entry]:
    """The table of a whole network by PyTorch name; arguments and errors as in `ruac_jax.weights.abstract_model`."""
    model = abstract_model(variant_name, head_name, head_settings)
    return table({path: value.shape for path, value in leaves(model).items()})


def to_torch(array: np.ndarray, found: Entry) -> np.ndarray:
    """Our layout to PyTorch's, contiguous."""
    return np.ascontiguousarray(array.transpose(found.axes)).reshape(found.torch_shape)


def to_flax(array: np.ndarray, found: Entry) -> np.ndarray:
    """PyTorch's layout to ours, contiguous."""
    return np.ascontiguousarray(array.transpose(np.argsort(found.axes))).reshape(found.shape)
