import pickle

import numpy as np
import pytest
from scipy import ndimage

from ruac_jax.data.record import Source
from ruac_jax.data.shapes import DOMAINS, SOURCE, TARGETS, ShapesSource
from ruac_jax.errors import UserError


def test_there_is_a_source_and_targets_of_three_kinds():
    kinds = [kind for kind in TARGETS.values()]
    assert SOURCE not in TARGETS
    assert len(kinds) >= 8
    assert all(kinds.count(kind) >= 3 for kind in ("appearance", "shape", "both"))
    assert DOMAINS.keys() == {SOURCE, *TARGETS}


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_image_has_one_to_five_sizeable_objects(domain):
    source = ShapesSource(domain, "train", num_images=6)
    assert isinstance(source, Source)
    for index in range(len(source)):
        record = source[index]
        assert record["image"].shape == (128, 128, 3)
        assert record["image"].dtype == np.uint8
        assert record["masks"].dtype == bool
        assert 1 <= len(record["masks"]) <= 5
        assert record["masks"].sum(axis=(1, 2)).min() >= 60
        assert record["image"].std() > 4
    assert len({source[index]["image_id"] for index in range(6)}) == 6


@pytest.mark.parametrize("domain", DOMAINS)
def test_only_see_through_domains_overlap(domain):
    source = ShapesSource(domain, "train", num_images=10)
    deepest = max(source[index]["masks"].sum(axis=0).max() for index in range(10))
    assert deepest > 1 if domain == "xray" else deepest == 1


def test_an_image_follows_from_seed_domain_split_and_index():
    def draw(domain="source", split="train", index=3, **options):
        return ShapesSource(domain, split, num_images=5, **options)[index]["image"].tobytes()

    others = [draw(index=2), draw(split="validation"), draw(seed=1), draw(domain="spiky")]
    assert draw() == draw() == ShapesSource("source", "train", num_images=900)[3]["image"].tobytes()
    assert len({draw(), *others}) == 5


def test_memory_is_a_copy_and_pickling_leaves_it_behind():
    source = ShapesSource("logs", num_images=40)
    first = source[0]
    kept = first["image"].copy()
    first["image"][:] = 0
    first["masks"][:] = False
    np.testing.assert_array_equal(source[0]["image"], kept)
    assert source[0]["masks"].any()
    assert len(pickle.dumps(source)) < 1000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[0]["image"], kept)


# In "texture" the pattern is stronger than any edge: that is the point of it.
@pytest.mark.parametrize("domain", sorted(DOMAINS.keys() - {"texture"}))
def test_masks_lie_where_the_image_changes(domain):
    """The mean gradient along the masks' edges clearly exceeds that of the ground."""
    on_edge, elsewhere = [], []
    source = ShapesSource(domain, "validation", num_images=6)
    for index in range(6):
        record = source[index]
        smooth = ndimage.gaussian_filter(record["image"].astype(float), (1, 1, 0))
        gradient = np.sqrt(sum(ndimage.sobel(smooth, axis) ** 2 for axis in (0, 1)).sum(axis=-1))
        edges = np.logical_or.reduce([m ^ ndimage.binary_erosion(m, border_value=1) for m in record["masks"]])
        covered = ndimage.binary_dilation(record["masks"].any(axis=0), iterations=8)
        on_edge.append(gradient[edges].mean())
        elsewhere.append(gradient[~covered].mean())
    assert np.mean(on_edge) > 1.2 * np.mean(elsewhere)


def test_source_objects_are_mostly_brighter_and_always_warmer():
    source = ShapesSource("source", num_images=80)
    brighter, warmer = [], []
    for index in range(80):
        record = source[index]
        inside = record["masks"].any(axis=0)
        gap = record["image"][inside].mean(axis=0) - record["image"][~inside].mean(axis=0)
        brighter.append(gap.mean() > 0)
        warmer.append(gap[0] > gap[2])
    assert 0.62 < np.mean(brighter) < 0.98  # 0.8, four standard deviations either way
    assert np.mean(warmer) > 0.95


@pytest.mark.parametrize("domain", ["source", "thin", "roofs", "fog"])
@pytest.mark.parametrize("size", [64, 200])
def test_other_sizes_show_the_same_kind_of_scene(domain, size):
    small, large = (ShapesSource(domain, size=s, num_images=10) for s in (128, size))
    areas = [
        np.mean([source[index]["masks"].sum() / source.size**2 for index in range(10)]) for source in (small, large)
    ]
    assert 0.5 < areas[1] / areas[0] < 2
    assert min(large[index]["masks"].sum(axis=(1, 2)).min() for index in range(10)) >= 60 * (size / 128) ** 2 - 1


def test_wrong_names_and_indices_are_refused():
    with pytest.raises(UserError, match="'fogg'; did you mean 'fog'"):
        ShapesSource("fogg")
    with pytest.raises(UserError, match="split 'val'; did you mean 'validation'"):
        ShapesSource("fog", "val")
    source = ShapesSource("fog", num_images=2)
    for index in (2, -1):
        with pytest.raises(IndexError):
            source[index]
