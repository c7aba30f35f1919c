import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.stats import pearsonr

from ruac_jax.attacks.attack import clean_scene
from ruac_jax.attacks.combined import RUACAttack
from ruac_jax.config import AttackConfig
from ruac_jax.data.record import Record
from ruac_jax.errors import UserError
from ruac_jax.evaluation.studies.alignment import (
    FeatureShifts,
    Scene,
    compare_shifts,
    dilated_cells,
    object_features,
    scenes,
    study_alignment,
)
from ruac_jax.evaluation.studies.perturbations import parts_of, untrained_attack
from ruac_jax.interaction import repeat_for_objects
from ruac_jax.model import Prompts, normalize_image
from ruac_jax.sam2.variants import variant

SIZE, SETTINGS = 64, AttackConfig()
D_MODEL = variant("nano").d_model


def test_cells_are_those_touched_and_their_neighbours():
    rng = np.random.default_rng(0)
    masks = rng.random((5, 32, 32)) < 0.02
    masks[0], masks[1, 0, 0] = False, True
    expected = np.zeros((5, 8, 8), bool)
    for n, y, x in zip(*np.nonzero(masks), strict=True):
        for cy in range(max(y // 4 - 1, 0), min(y // 4 + 2, 8)):
            for cx in range(max(x // 4 - 1, 0), min(x // 4 + 2, 8)):
                expected[n, cy, cx] = True
    np.testing.assert_array_equal(dilated_cells(jnp.asarray(masks), (8, 8)), expected)


def test_scenes_hold_eight_objects_and_leave_out_what_vanishes():
    masks = np.zeros((10, 256, 256), bool)
    for i, mask in enumerate(masks):
        mask[20 * i : 20 * i + 18, 10:60] = True
    masks[4] = False
    masks[4, 85, 85] = True  # one pixel of 256: gone at 64
    masks[7] = False
    record = Record(image=np.full((256, 256, 3), 9, np.uint8), masks=masks, image_id="a")
    first, second = scenes(record, SIZE)
    np.testing.assert_array_equal(first.valid[0], [True, True, True, True, False, True, True, True])
    np.testing.assert_array_equal(second.valid[0], [True] + [False] * 7)
    assert first.masks.shape == (1, 8, SIZE, SIZE)
    np.testing.assert_array_equal(first.masks[0].any(axis=(1, 2)), first.valid[0])
    assert first.image.shape == (1, SIZE, SIZE, 3)
    assert list(scenes(Record(image=record["image"], masks=masks[7:8], image_id="a"), SIZE)) == []


def disks(centres, radius=9):
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.stack([(x - cx) ** 2 + (y - cy) ** 2 <= radius**2 for cx, cy in centres])


@pytest.fixture(scope="module")
def scene() -> Scene:
    rng = np.random.default_rng(3)
    masks = disks([(16, 20), (44, 40), (20, 50)])
    image = rng.integers(0, 90, (SIZE, SIZE, 3), np.uint8)
    for i, mask in enumerate(masks):
        image[mask] = image[mask] // 4 + np.array([60 * i, 160, 200 - 60 * i], np.uint8)
    (found,) = scenes(Record(image=image, masks=masks, image_id="disks"), SIZE)
    return found


@pytest.fixture(scope="module")
def network(model) -> FeatureShifts:
    """Untrained attack, whole, and a deformation that is the identity, as every run's is when it starts."""
    still = RUACAttack.create(AttackConfig(style=False, graph=False), D_MODEL, rngs=nnx.Rngs(0))
    attack = parts_of(untrained_attack(SETTINGS, D_MODEL))["style and deformation"]
    return FeatureShifts(model, SIZE, {"still": still, "attack": attack})


@pytest.mark.slow
def test_features_are_means_of_the_decoder_s_over_dilated_masks(model, network, scene):
    found = network.clean(scene)

    @jax.jit
    def pixels(image, points, labels):
        features = model.project(model.backbone(normalize_image(image)))
        prompts = Prompts(points, labels, jnp.zeros((8, 16, 16)), jnp.zeros(8, bool))
        return model.decode(repeat_for_objects(features, 8), prompts).pixels

    maps = np.asarray(pixels(scene.image, scene.points[0], scene.labels), np.float64)
    cells = np.asarray(dilated_cells(jnp.asarray(scene.masks[0]), (16, 16)))
    expected = [maps[i][cells[i]].mean(axis=0) for i in range(3)]
    assert found.shape == (3, D_MODEL // 8)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.ptp(found, axis=0).max() > 1e-3  # objects differ


@pytest.mark.slow
def test_what_changes_nothing_shifts_nothing(network, scene):
    shifts = network.shifts(scene)
    assert list(shifts) == ["Gaussian noise", "still", "attack"]
    np.testing.assert_array_equal(shifts["still"], np.zeros((3, D_MODEL // 8)))
    assert np.abs(shifts["attack"]).max() > np.abs(shifts["Gaussian noise"]).max() > 0


@pytest.mark.slow
def test_shifts_are_those_of_the_attacked_image(model, network, scene):
    """The attack by hand: prompts move against the flow, features are pooled where the objects are now."""
    attack = untrained_attack(SETTINGS, D_MODEL)

    @jax.jit
    def by_hand(scene):
        image = normalize_image(scene.image)
        features = model.project(model.backbone(image))
        out = attack(clean_scene(features.embedding, image, scene.masks, scene.valid, model.memory_encoder), None)
        harder = model.project(model.backbone(out.image))
        still = [object_features(model, features, scene.masks, scene.points, scene.labels)]
        return out, harder, still[0]

    out, harder, clean = by_hand(scene)
    points = np.array(scene.points)
    flow = np.asarray(out.flow)
    for k in range(8):
        for p, (x, y) in enumerate(points[0, k]):
            x0, y0 = int(np.clip(x, 0, SIZE - 1)), int(np.clip(y, 0, SIZE - 1))
            x1, y1 = min(x0 + 1, SIZE - 1), min(y0 + 1, SIZE - 1)
            fx, fy = x - x0, y - y0
            field = flow[0, k]
            top = (1 - fx) * field[y0, x0] + fx * field[y0, x1]
            bottom = (1 - fx) * field[y1, x0] + fx * field[y1, x1]
            points[0, k, p] = np.clip([x, y] - ((1 - fy) * top + fy * bottom), 0, SIZE - 1)
    assert np.abs(points - scene.points).max() > 0.1
    describe = jax.jit(lambda *given: object_features(model, *given))
    after = describe(harder, out.masks, jnp.asarray(points), jnp.asarray(scene.labels))
    expected = (np.asarray(after) - np.asarray(clean))[:3]
    np.testing.assert_allclose(network.shifts(scene)["attack"], expected, rtol=1e-3, atol=1e-4)


def test_comparison_by_hand(rng):
    first, second = np.array([3.0, 0.0, -4.0, 0.0]), np.array([0.0, 1.0, 0.0, -2.0])
    perturbations = {"same": 2 * (first + second), "opposite": -first, "flat": np.full(4, 0.5)}
    results = compare_shifts(perturbations, {"a": first, "b": second})
    assert results["targets"]["a"] == {"shift": first.tolist(), "norm": 5.0, "top_channels": [2, 0, 1]}
    assert results["target_mean"]["shift"] == [1.5, 0.5, -2.0, -1.0]
    same = results["perturbations"]["same"]
    assert same["pearson"] == pytest.approx(1, abs=1e-12)
    assert same["norm"] == pytest.approx(np.sqrt(36 + 4 + 64 + 16))
    assert same["pearson_by_target"]["b"] == pytest.approx(pearsonr(first + second, second).statistic, abs=1e-12)
    assert results["perturbations"]["opposite"]["pearson_by_target"]["a"] == pytest.approx(-1, abs=1e-12)
    assert results["perturbations"]["flat"]["pearson"] is None
    assert results["top_counts"] == {"0": 2, "1": 2, "2": 1, "3": 1}  # of b: 3, 1, then the first of the zeros


@pytest.mark.slow
def test_study_of_two_domains(model, subjects):
    attacks = {"untrained style": parts_of(untrained_attack(SETTINGS, D_MODEL))["style"]}
    finding = study_alignment(model, SIZE, subjects, attacks)
    results = finding.results
    network = FeatureShifts(model, SIZE, attacks)
    found = {
        subject.name: [scene for index in subject.indices for scene in scenes(subject.source[index], SIZE)]
        for subject in subjects
    }
    means = {
        name: np.concatenate([network.clean(scene) for scene in listed]).mean(axis=0) for name, listed in found.items()
    }
    shift = means["shapes/xray"] - means["shapes/source"]
    np.testing.assert_allclose(results["targets"]["shapes/xray"]["shift"], shift, rtol=1e-6, atol=1e-9)
    style = np.concatenate([network.shifts(scene)["untrained style"] for scene in found["shapes/source"]]).mean(axis=0)
    assert results["perturbations"]["untrained style"]["pearson"] == pytest.approx(pearsonr(style, shift).statistic)
    assert results["objects"] == {
        name: sum(int(scene.valid.sum()) for scene in listed) for name, listed in found.items()
    }
    assert results["source"] == "shapes/source"
    assert "| Gaussian noise  |" in finding.tables
    assert "| mean of targets |" in finding.tables
    json.dumps(results, allow_nan=False)


def test_one_domain_or_none_without_objects_is_refused(model, subjects):
    with pytest.raises(UserError, match="name the source domain first, then one target"):
        study_alignment(model, SIZE, subjects[:1], {})
    hollow = subjects[0]._replace(indices=[])
    with pytest.raises(UserError, match="shapes/source: no object in the 0 images chosen"):
        study_alignment(model, SIZE, [hollow, subjects[1]], {})
