import dataclasses

import pytest

from ruac_jax.sam2.variants import VARIANTS, variant


def test_base_plus_is_the_published_one():
    size = variant("base_plus")
    assert size.stages == (2, 3, 16, 3)
    assert size.global_att_blocks == (12, 16, 20)
    assert size.window_spec == (8, 4, 14, 7)
    assert size.stage_dims == (112, 224, 448, 896)
    assert size.stage_ends == (1, 4, 20, 23)


@pytest.mark.parametrize("name", VARIANTS)
def test_sizes_fit_together(name):
    size = variant(name)
    assert size.name == name
    assert len(size.stages) == len(size.window_spec) == 4
    assert size.image_size % 32 == 0
    # The window embedding tiles the stride-4 map, and pooling halves every window but the last.
    assert (size.image_size // 4) % size.window_spec[0] == 0
    assert all(window % 2 == 0 for window in size.window_spec[:-1])
    assert size.d_model % (2 * size.decoder_heads) == 0
    third = range(size.stage_ends[1] + 2, size.stage_ends[2] + 1)
    assert all(block in third for block in size.global_att_blocks)


@pytest.mark.parametrize(("typed", "meant"), [("base-plus", "base_plus"), ("tinny", "tiny"), ("b", "base_plus")])
def test_unknown_name(typed, meant):
    with pytest.raises(ValueError, match=meant):
        variant(typed)


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        variant("tiny").embed_dim = 1
