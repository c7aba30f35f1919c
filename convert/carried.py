"""SAM2 tensors that the single-frame network does not compute with.

Carried ones are kept, untouched, beside the parameters, so that the way back gives a whole SAM2 file again, one that
the PyTorch video predictor loads strictly. Dropped ones only served training.
"""

from convert.names import HYPERNETWORK_PREFIX, Shape

# Prefix -> why the network has no place for it.
CARRIED = {
    "memory_attention.": "attends to earlier frames of a video",
    "maskmem_tpos_enc": "tells how old a remembered frame is",
    "no_mem_pos_enc": "position of the empty memory, where attention reads it",
    "no_obj_ptr": "object pointer of an absent object, for later frames",
    "no_obj_embed_spatial": "marks an absent object in the memory (since SAM2.1)",
    "obj_ptr_proj.": "makes an object pointer for later frames",
    "obj_ptr_tpos_proj.": "tells how old an object pointer is (since SAM2.1)",
    "mask_downsample.": "feeds a given mask to the object pointer",
}

CARRIED_WITH_WEIBULL = {HYPERNETWORK_PREFIX: "SAM2's own mask head, replaced by the Weibull head"}

DROPPED = {
    "style_attacker.": "attacks only in training",
    "deform_attacker.": "attacks only in training",
    "style_gcn.": "attacks only in training",
}

_SINCE_SAM2_1 = ("no_obj_embed_spatial", "obj_ptr_tpos_proj.")


def reason(name: str, reasons: dict[str, str]) -> str | None:
    """The reason of the first prefix that `name` starts with, None where none fits."""
    return next((why for prefix, why in reasons.items() if name.startswith(prefix)), None)


def sam2_version(names: set[str]) -> str | None:
    """Which SAM2 release the names are of.

    Returns:
      "2.1", "2.0", or None for a file without any of SAM2's video tensors.
    """
    if any(name.startswith(_SINCE_SAM2_1) for name in names):
        return "2.1"
    return "2.0" if any(reason(name, CARRIED) for name in names) else None


def carried_shapes(version: str | None, d_model: int, memory_dim: int) -> dict[str, Shape]:
    """Every carried tensor of a SAM2 release by name; memory attention has one shape in all sizes."""
    if version is None:
        return {}
    shapes: dict[str, Shape] = {
        "maskmem_tpos_enc": (7, 1, 1, memory_dim),
        "no_mem_pos_enc": (1, 1, d_model),
        "no_obj_ptr": (1, d_model),
        "no_obj_embed_spatial": (1, memory_dim),
        "mask_downsample.weight": (1, 1, 4, 4),
        "mask_downsample.bias": (1,),
    }

    def linear(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs)
        shapes[f"{name}.bias"] = (outputs,)

    def norm(name: str) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (d_model,)

    linear("obj_ptr_tpos_proj", d_model, memory_dim)
    for layer in range(3):
        linear(f"obj_ptr_proj.layers.{layer}", d_model, d_model)
    for layer in range(4):
        block = f"memory_attention.layers.{layer}"
        for attention, memory in (("self_attn", d_model), ("cross_attn_image", memory_dim)):
            linear(f"{block}.{attention}.q_proj", d_model, d_model)
            linear(f"{block}.{attention}.k_proj", memory, d_model)
            linear(f"{block}.{attention}.v_proj", memory, d_model)
            linear(f"{block}.{attention}.out_proj", d_model, d_model)
        linear(f"{block}.linear1", d_model, 2048)
        linear(f"{block}.linear2", 2048, d_model)
        for index in (1, 2, 3):
            norm(f"{block}.norm{index}")
    norm("memory_attention.norm")
    if version == "2.0":
        return {name: shape for name, shape in shapes.items() if not name.startswith(_SINCE_SAM2_1)}
    return shapes
