import tracemalloc
from typing import NamedTuple

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from ruac_jax.data.masks import RunLengthMasks
from ruac_jax.errors import UserError
from ruac_jax.evaluation import measure
from ruac_jax.evaluation.protocol import Protocol, evaluate_record, evaluate_source, upsample
from ruac_jax.evaluation.state import DatasetState
from ruac_jax.prompts import corrective_click, fixed_clicks


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

    def decode(self, features, points, labels, previous=None):
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
    examples = []
    state = evaluate_source([Recorder()], [nothing, hollow], drawn=frozenset({0, 1}), draw=examples.append)
    result = state.compute()
    assert (result["images"], result["objects"], result["skipped"]) == (2, 3, 1)
    assert len(examples) == 1
    empty = evaluate_source([Recorder()], [])
    assert empty.compute()["j"] is None
    assert empty.compute()["images"] == 0


def test_one_compilation_for_many_sizes_and_counts(rng):
    before = measure._measure._cache_size()
    for objects, size in ((3, (50, 170)), (4, (51, 171)), (3, (52, 190)), (4, (120, 256)), (3, (33, 199))):
        evaluate_record(Recorder(), record(rng, objects, size))
    assert measure._measure._cache_size() == before + 1  # 3 or 4 objects in frames of 128 x 256


def test_bad_records_and_predictions_name_the_image(rng):
    wrong = record(rng, image_id="folder/image_7")
    wrong["masks"] = wrong["masks"][:, :-1]
    with pytest.raises(UserError, match="folder/image_7"):
        evaluate_record(Recorder(), wrong)

    class Broken(Recorder):
        def decode(self, features, points, labels, previous=None):
            maps = super().decode(features, points, labels)
            maps.uncertainty[0, 3, 3] = np.nan
            return maps

    with pytest.raises(UserError, match=r"image_9.*not finite"):
        evaluate_record(Broken(), record(rng, image_id="image_9"))


def test_stored_clicks_are_used_and_run_lengths_read_as_arrays(rng):
    plain = record(rng)
    stored = plain | {
        "masks": RunLengthMasks.encode((50, 70), plain["masks"]),
        "points": np.stack([fixed_clicks(mask)[0] for mask in plain["masks"]]).astype(np.int32),
    }
    states = [evaluate_record(Recorder(), sample)[0] for sample in (plain, stored)]
    assert states[0].compute() == states[1].compute()
    assert states[0].prompts_fingerprint() == states[1].prompts_fingerprint()
    stored["points"] = stored["points"] + 1
    predictor = Recorder()
    moved, _ = evaluate_record(predictor, stored)
    np.testing.assert_allclose(predictor.calls[0][1][:3], stored["points"] * [64 / 70, 64 / 50], rtol=1e-6)
    assert moved.prompts_fingerprint() != states[0].prompts_fingerprint()


def test_the_largest_objects_are_judged_where_there_is_a_cap(rng):
    sample = record(rng, objects=4)
    sample["masks"][0, :, :] = False
    sample["masks"][0, 3:8, 3:8] = True  # 25 px, the others have 144
    sample["masks"][2] = False
    state, example = evaluate_record(Recorder(), sample, Protocol(max_objects=2), with_example=True)
    result = state.compute()
    assert (result["objects"], result["skipped"], result["left_out"]) == (2, 1, 1)
    np.testing.assert_array_equal(example.truth, sample["masks"][[1, 3]])


class Responsive(Recorder):
    """Wrong at first, right where it was clicked afterwards: each click sets the 3 x 3 cells around it."""

    def __init__(self, first):
        super().__init__()
        self.first, self.previous = first, []

    def decode(self, features, points, labels, previous=None):
        self.calls.append((features, points.copy(), labels.copy()))
        self.previous.append(previous)
        logits = np.repeat(self.first[None], len(points), axis=0).astype(np.float32)
        for row, (xy, label) in enumerate(zip(points, labels, strict=True)):
            for (x, y), kind in zip(xy, label, strict=True):
                if kind >= 0:
                    logits[row, max(int(y / 4) - 1, 0) : int(y / 4) + 2, max(int(x / 4) - 1, 0) : int(x / 4) + 2] = (
                        6.0 if kind else -6.0
                    )
        p = 1 / (1 + np.exp(-logits))
        return Maps(logits, p, 1 - np.abs(2 * p - 1))


def test_interactive_clicks_correct_the_last_answer(rng):
    sample = record(rng, objects=2)
    predictor = Responsive(np.full((16, 16), -6.0))
    evaluate_record(predictor, sample, Protocol("interactive3"))
    scale = np.array([64 / 70, 64 / 50])
    (_, _, first_labels), (_, points, labels), (_, last_points, last_labels) = predictor.calls
    np.testing.assert_array_equal(first_labels, [[1, -2, -2]] * 2)
    assert predictor.previous[0] is None
    for index, mask in enumerate(sample["masks"]):
        np.testing.assert_allclose(points[index, 0], fixed_clicks(mask, 1)[0][0] * scale, rtol=1e-6)
        click, label = corrective_click(mask, upsample(predictor.previous[1][index : index + 1], (50, 70))[0] > 0)
        np.testing.assert_allclose(points[index, 1], click * scale, rtol=1e-6)
        assert labels[index].tolist() == [1, label, -2]
        click, label = corrective_click(mask, upsample(predictor.previous[2][index : index + 1], (50, 70))[0] > 0)
        np.testing.assert_allclose(last_points[index, 2], click * scale, rtol=1e-6)
        assert last_labels[index, 2] == label


def test_a_perfect_answer_is_not_clicked_again(rng):
    sample = record(rng, objects=1, size=(64, 64))
    logits = np.full((16, 16), -6.0, np.float32)
    logits[4:12, 4:12] = 6.0
    sample["masks"] = upsample(logits[None], (64, 64)) > 0
    predictor = Responsive(logits)
    state, _ = evaluate_record(predictor, sample, Protocol("interactive3"))
    assert state.compute()["j"] == 1.0
    assert [labels[0].tolist() for _, _, labels in predictor.calls] == [[1, -2, -2]] * 3


def test_any_number_of_predictors_gives_the_same_bits(rng):
    samples = [record(rng, objects=1 + i % 3, image_id=str(i)) for i in range(7)]
    one, three = (evaluate_source([Recorder() for _ in range(n)], samples) for n in (1, 3))
    assert one.compute() == three.compute()
    assert one.prompts == three.prompts
    parts = [evaluate_source([Recorder()], samples, indices=list(range(7))[i::3]) for i in range(3)]
    assert parts[2].merge(parts[0]).merge(parts[1]).compute() == one.compute()


@pytest.mark.slow
def test_a_thousand_objects_in_little_memory():
    """As arrays these masks would take 123 MB."""
    size = (256, 480)

    def squares():
        for index in range(1000):
            mask = np.zeros(size, bool)
            top, left = index // 40 * 10, index % 40 * 12
            mask[top : top + 6, left : left + 8] = True
            yield mask

    masks = RunLengthMasks.encode(size, squares())
    sample = {"image": np.zeros((*size, 3), np.uint8), "masks": masks, "image_id": "many"}
    tracemalloc.start()
    state, example = evaluate_record(Recorder(), sample, with_example=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert state.compute()["objects"] == 1000
    assert len(example.truth) == 16
    assert peak < 60e6


@pytest.mark.slow
def test_an_image_of_twelve_megapixels(rng):
    size = (3000, 4000)
    masks = np.zeros((2, *size), bool)
    masks[0, 100:2900, 200:1800] = True
    masks[1, 2990:2999, 3990:3999] = True
    sample = {"image": np.zeros((*size, 3), np.uint8), "masks": masks, "image_id": "large"}
    predictor = Recorder()
    result = evaluate_record(predictor, sample)[0].compute()
    predicted = upsample(predictor.decode(None, np.zeros((2, 3, 2)), None).logits, size) > 0
    iou = (predicted & masks).sum((1, 2)) / (predicted | masks).sum((1, 2))
    assert result["j"] == pytest.approx(iou.mean(), abs=1e-5)  # logits next to 0 may round to either side
    assert result["pixels"] == 2 * 12_000_000
