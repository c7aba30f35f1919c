"""Sizes of the network: SAM2.1's four, and a nano one that trains from scratch on a CPU.

Mirrors the model sections of SAM2's configs/sam2.1/*.yaml and the constants that SAM2 keeps in
sam2/modeling/sam2_base.py.
"""

import dataclasses
import difflib


@dataclasses.dataclass(frozen=True)
class Variant:
    """Every size that the modules need. Spatial sizes in cells of the level they belong to."""

    name: str
    embed_dim: int
    num_heads: int
    stages: tuple[int, ...]
    global_att_blocks: tuple[int, ...]
    window_pos_embed_bkg_spatial_size: tuple[int, int] = (7, 7)
    window_spec: tuple[int, ...] = (8, 4, 14, 7)
    image_size: int = 1024
    d_model: int = 256
    mask_in_chans: int = 16
    num_mask_tokens: int = 4
    decoder_depth: int = 2
    decoder_heads: int = 8
    decoder_mlp_dim: int = 2048
    iou_hidden_dim: int = 256
    memory_dim: int = 64
    memory_fuser_layers: int = 2

    @property
    def stage_dims(self) -> tuple[int, ...]:
        """Channels of each stage, high to low resolution."""
        return tuple(self.embed_dim * 2**i for i in range(len(self.stages)))

    @property
    def stage_ends(self) -> tuple[int, ...]:
        """Index of the last block of each stage."""
        return tuple(sum(self.stages[: i + 1]) - 1 for i in range(len(self.stages)))


VARIANTS = {
    v.name: v
    for v in (
        Variant("tiny", embed_dim=96, num_heads=1, stages=(1, 2, 7, 2), global_att_blocks=(5, 7, 9)),
        Variant("small", embed_dim=96, num_heads=1, stages=(1, 2, 11, 2), global_att_blocks=(7, 10, 13)),
        Variant(
            "base_plus",
            embed_dim=112,
            num_heads=2,
            stages=(2, 3, 16, 3),
            global_att_blocks=(12, 16, 20),
            window_pos_embed_bkg_spatial_size=(14, 14),
        ),
        Variant(
            "large",
            embed_dim=144,
            num_heads=2,
            stages=(2, 6, 36, 4),
            global_att_blocks=(23, 33, 43),
            window_spec=(8, 4, 16, 8),
        ),
        Variant(
            "nano",
            embed_dim=24,
            num_heads=1,
            stages=(1, 1, 2, 1),
            global_att_blocks=(3,),
            window_pos_embed_bkg_spatial_size=(4, 4),
            window_spec=(8, 4, 4, 4),
            image_size=128,
            d_model=128,
            decoder_heads=4,
            decoder_mlp_dim=256,
            iou_hidden_dim=128,
            memory_dim=32,
            memory_fuser_layers=1,
        ),
    )
}


def variant(name: str) -> Variant:
    """Looks a variant up.

    Raises:
        ValueError: no such variant; the message names the nearest one.
    """
    if name in VARIANTS:
        return VARIANTS[name]
    nearest = difflib.get_close_matches(name, VARIANTS, n=1, cutoff=0.0)[0]
    raise ValueError(f"unknown variant {name!r}: did you mean {nearest!r}? (known: {', '.join(VARIANTS)})")
