from typing import NamedTuple

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from ruac_jax.errors import UserError
from ruac_jax.evaluation import protocol
from ruac_jax.evaluation.protocol import DatasetState, evaluate_record, evaluate_source
from ruac_jax.prompts import fixed_clicks


class Maps(NamedTuple):
    logits: np.ndarray
    probability: np.ndarray
    uncertainty: np.ndarray


class Recorder:
    """Returns given maps and keeps what it was asked."""

    image_size = 64

    def __init__(self, seed=0):
        self.seed = seed
        self.calls = []
        self.images = []

    def encode(self, image):
        self.images.append(image)
        return len(self.images)

    def decode(self, features, points, labels):
        self.calls.append((features, points, labels))
        rng = np.random.default_rng(self.seed)
        noise = np.stack([gaussian_filter(rng.standard_normal((16, 16)), 2) for _ in range(len(points))]) * 10
        p = 1 / (1 + np.exp(-noise))
        return Maps(*(a.astype(np.float32) for a in (noise, p, 1 - np.abs(2 * p - 1))))


def record(rng, objects=3, size=(50, 70), image_id="a"):
    masks = np.zeros((objects, *size), bool)
    for mask in masks:
        y, x = rng.integers(0, size[0] - 12), rng.integers(0, size[1] - 12)
        mask[y : y + 12, x : x + 12] = True
    return {"image": rng.integers(0, 256, (*size, 3), np.uint8), "masks": masks, "image_id": image_id}


def test_prompts_are_scaled_clicks_in_padded_buckets(rng):
    predictor, sample = Recorder(), record(rng)
    evaluate_record(predictor, sample)
    ((_, points, labels),) = predictor.calls
    assert points.shape == (4, 3, 2)
    assert labels.shape == (4, 3)
    assert (points.dtype, labels.dtype) == (np.float32, np.int32)
    expected = np.stack([fixed_clicks(mask)[0] for mask in sample["masks"]]) * [64 / 70, 64 / 50]
    np.testing.assert_allclose(points[:3], expected, rtol=1e-6)
    assert predictor.images[0].shape == (64, 64, 3)


def test_metrics_equal_a_plain_computation(rng):
    predictor, sample = Recorder(), record(rng)
    state, example = evaluate_record(predictor, sample, with_example=True)
    maps = predictor.decode(None, np.zeros((4, 3, 2)), None)
    # scipy's grid mode is the half-pixel convention
    full = Maps(
        *(np.stack([zoom(m, (50 / 16, 70 / 16), order=1, grid_mode=True, mode="nearest") for m in a[:3]]) for a in maps)
    )
    masks = full.logits > 0
    np.testing.assert_array_equal(example.prediction, masks)
    np.testing.assert_allclose(example.uncertainty, full.uncertainty, atol=1e-5)
    result = state.compute()
    truth = sample["masks"]
    iou = (masks & truth).sum((1, 2)) / (masks | truth).sum((1, 2))
    assert result["j"] == pytest.approx(iou.mean(), abs=1e-12)
    wrong = masks != truth
    assert result["pavpu_0.10"] == pytest.approx(np.mean((full.uncertainty > 0.1) == wrong), abs=1e-3)
    assert result["brier"] == pytest.approx(np.mean((full.probability - truth) ** 2), abs=1e-6)
    assert (result["images"], result["objects"], result["pixels"]) == (1, 3, 3 * 50 * 70)
    means = [full.uncertainty[i][masks[i]].mean() for i in range(3)]
    np.testing.assert_allclose(state.ranking.rows[:, 0], means, atol=1e-5)


def test_many_objects_are_decoded_in_pieces_of_one_encoding(rng):
    predictor = Recorder()
    state, _ = evaluate_record(predictor, record(rng, objects=70))
    assert state.region.objects == 70
    assert [len(points) for _, points, _ in predictor.calls] == [64, 8]
    assert len(predictor.images) == 1


def test_merging_images_in_any_order_gives_the_same_figures(rng):
    samples = [record(rng, objects=n) for n in (3, 4, 3)]
    states = [evaluate_record(Recorder(seed), sample)[0] for seed, sample in enumerate(samples)]
    forward = DatasetState().merge(states[0]).merge(states[1]).merge(states[2])
    backward = states[2].merge(states[1].merge(states[0]))
    assert forward.compute() == backward.compute()


def test_images_and_objects_without_pixels(rng):
    nothing = record(rng, objects=0)
    hollow = record(rng, objects=4)
    hollow["masks"][1] = False
    state, examples = evaluate_source(Recorder(), [nothing, hollow], examples=2)
    result = state.compute()
    assert (result["images"], result["objects"], result["skipped"]) == (2, 3, 1)
    assert len(examples) == 1
    empty, _ = evaluate_source(Recorder(), [])
    assert empty.compute()["j"] is None
    assert empty.compute()["images"] == 0


def test_one_compilation_for_many_sizes_and_counts(rng):
    before = protocol._measure._cache_size()
    for objects, size in ((3, (50, 170)), (4, (51, 171)), (3, (52, 190)), (4, (120, 256)), (3, (33, 199))):
        evaluate_record(Recorder(), record(rng, objects, size))
    assert protocol._measure._cache_size() == before + 1  # 3 or 4 objects in frames of 128 x 256


def test_bad_records_and_predictions_name_the_image(rng):
    wrong = record(rng, image_id="folder/image_7")
    wrong["masks"] = wrong["masks"][:, :-1]
    with pytest.raises(UserError, match="folder/image_7"):
        evaluate_record(Recorder(), wrong)

    class Broken(Recorder):
        def decode(self, features, points, labels):
            maps = super().decode(features, points, labels)
            maps.uncertainty[0, 3, 3] = np.nan
            return maps

    with pytest.raises(UserError, match=r"image_9.*not finite"):
        evaluate_record(Broken(), record(rng, image_id="image_9"))
