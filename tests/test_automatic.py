import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from pycocotools import mask as coco

from ruac_jax import automatic
from ruac_jax.automatic import AutomaticMaskGenerator, box_nms, point_grid, remove_small_regions
from ruac_jax.errors import UserError
from ruac_jax.inference import Hypotheses
from ruac_jax.predictor import Predictor
from ruac_jax.weights import create_model

SIZE, LOW = 64, 16


class Scripted(Predictor):
    """Answers every click with what `script` says, on the network's grid."""

    def __init__(self, script, mask_threshold=0.0):
        self.script, self.image_size, self.mask_threshold = script, SIZE, mask_threshold
        self.clicks, self.shapes, self.sizes = [], [], []

    @property
    def original_sizes(self):
        return self.sizes

    def set_image(self, image):
        self.sizes = [image.shape[:2]]

    def reset_predictor(self):
        self.sizes = []

    def decode(self, prompts, images, *, several, options, key=None):
        assert several
        self.shapes.append(prompts.points.shape)
        self.clicks += prompts.points[:, 0].tolist()
        answers = [self.script(x, y) for x, y in prompts.points[:, 0]]
        return Hypotheses(*(jnp.asarray(np.stack(part), jnp.float32) for part in zip(*answers, strict=True)))


def rectangle(x0, y0, x1, y1, inside=5.0, outside=-5.0):
    logits = np.full((LOW, LOW), outside)
    logits[y0:y1, x0:x1] = inside
    return logits


# One image whose size is the network's grid, so that upsampling changes nothing.
IMAGE = np.zeros((LOW, LOW, 3), np.uint8)


def answer(*logits, iou, uncertainty=None):
    shape = (3, LOW, LOW)
    return np.stack(logits), np.full(shape, 0.25) if uncertainty is None else uncertainty, np.array(iou)


def test_a_record_by_hand():
    uncertainty = np.arange(3 * LOW * LOW).reshape(3, LOW, LOW) / (3 * LOW * LOW)
    sharp = rectangle(2, 3, 7, 11)
    soft = rectangle(9, 1, 15, 5, outside=-5.0)
    soft[1, 9:15] = 0.5  # one row of four is on neither side of the offset for sure
    wide = rectangle(0, 0, 16, 16)

    predictor = Scripted(lambda x, y: answer(sharp, soft, wide, iou=[0.9, 0.95, 0.5], uncertainty=uncertainty))
    generator = AutomaticMaskGenerator(
        predictor, points_per_side=1, stability_score_thresh=0.7, uncertainty_maps=True, pred_iou_thresh=0.5
    )
    second, first = generator.generate(IMAGE)[::-1]
    np.testing.assert_array_equal(first["segmentation"], soft > 0)
    np.testing.assert_array_equal(second["segmentation"], sharp > 0)
    assert (first["area"], second["area"]) == (24, 40)
    assert (first["bbox"], second["bbox"]) == ([9, 1, 5, 3], [2, 3, 4, 7])
    assert (first["stability_score"], second["stability_score"]) == (0.75, 1.0)
    assert first["predicted_iou"] == pytest.approx(0.95)
    assert first["point_coords"] == [[8.0, 8.0]]
    assert predictor.clicks == [[32.0, 32.0]]
    assert first["uncertainty_mean"] == pytest.approx(uncertainty[1][soft > 0].mean(), rel=1e-5)
    np.testing.assert_allclose(second["uncertainty"], uncertainty[0], rtol=1e-6)
    assert predictor.original_sizes == []


def test_filters_are_strict_where_sam2_is():
    """IoU has to be above its threshold, stability at least at its; a mask without a pixel never passes."""
    masks = rectangle(0, 0, 4, 4), rectangle(8, 8, 12, 12), rectangle(0, 0, 0, 0)
    predictor = Scripted(lambda x, y: answer(*masks, iou=[0.5, 0.625, 0.75]))

    def areas(**settings):
        found = AutomaticMaskGenerator(predictor, points_per_side=1, **settings).generate(IMAGE)
        return [record["bbox"][0] for record in found]

    assert areas(pred_iou_thresh=0.5, stability_score_thresh=1.0) == [8]
    assert areas(pred_iou_thresh=0.49, stability_score_thresh=1.0) == [8, 0]
    assert areas(pred_iou_thresh=0.0, stability_score_thresh=0.0) == [8, 0]
    assert areas(pred_iou_thresh=0.7) == []


def test_the_threshold_is_the_predictors():
    logits = rectangle(2, 2, 12, 12, inside=2.0, outside=-2.0)
    logits[4:6, 4:6] = 9.0
    predictor = Scripted(lambda x, y: answer(logits, logits, logits, iou=[0.9, 0.1, 0.1]), mask_threshold=4.0)
    (found,) = AutomaticMaskGenerator(predictor, points_per_side=1).generate(IMAGE)
    assert (found["area"], found["stability_score"]) == (4, 1.0)


def quadrant(x, y):
    """The quadrant that was clicked, the left or right half, and nothing of worth."""
    left, top = 8 * int(x >= SIZE / 2), 8 * int(y >= SIZE / 2)
    return answer(
        rectangle(left, top, left + 8, top + 8), rectangle(left, 0, left + 8, 16), np.zeros((LOW, LOW)),
        iou=[0.9 + 1e-3 * y / SIZE + 1e-4 * x / SIZE, 0.95, 0.1],
    )  # fmt: skip


def test_each_thing_is_found_once_whatever_the_batches():
    results = []
    for batch in (64, 5, 1):
        predictor = Scripted(quadrant)
        found = AutomaticMaskGenerator(predictor, points_per_side=4, points_per_batch=batch).generate(IMAGE)
        results.append([(record["bbox"], record["predicted_iou"], record["point_coords"]) for record in found])
        assert len({shape for shape in predictor.shapes}) == 1  # the last batch is filled up
    assert results[0] == results[1] == results[2]
    assert [bbox for bbox, *_ in results[0]] == [
        [0, 0, 7, 15], [8, 0, 7, 15], [8, 8, 7, 7], [0, 8, 7, 7], [8, 0, 7, 7], [0, 0, 7, 7],
    ]  # fmt: skip


def test_sorting_and_run_lengths():
    predictor = Scripted(lambda x, y: answer(
        rectangle(0, 0, 4, 4), rectangle(5, 5, 15, 15), rectangle(0, 8, 4, 15), iou=[0.95, 0.9, 0.85]
    ))  # fmt: skip
    settings = {"points_per_side": 2, "output_mode": "coco_rle"}
    by_iou = AutomaticMaskGenerator(predictor, **settings).generate(IMAGE)
    by_area = AutomaticMaskGenerator(predictor, sort_by="area", **settings).generate(IMAGE)
    assert [record["area"] for record in by_iou] == [16, 100, 28]
    assert [record["area"] for record in by_area] == [100, 28, 16]
    decoded = coco.decode(by_area[0]["segmentation"])
    np.testing.assert_array_equal(decoded, rectangle(5, 5, 15, 15) > 0)
    assert "uncertainty" not in by_area[0]


def test_small_regions_go_and_what_then_coincides_is_kept_once():
    holed = rectangle(2, 2, 12, 12)
    holed[5:7, 5:7] = -5.0  # a hole of 4 px
    holed[15, 15] = 5.0  # an island of 1 px, which makes another box
    whole = rectangle(2, 2, 12, 12)
    uncertainty = np.random.default_rng(0).uniform(0, 1, (3, LOW, LOW))
    predictor = Scripted(
        lambda x, y: answer(holed, whole, rectangle(0, 0, 0, 0), iou=[0.95, 0.9, 0.1], uncertainty=uncertainty)
    )
    settings = {"points_per_side": 1, "box_nms_thresh": 0.8}
    before = AutomaticMaskGenerator(predictor, **settings).generate(IMAGE)
    assert [record["area"] for record in before] == [97, 100]
    (after,) = AutomaticMaskGenerator(predictor, min_mask_region_area=5, **settings).generate(IMAGE)
    assert (after["area"], after["predicted_iou"]) == (100, pytest.approx(0.9))  # the one that was not touched
    alone = Scripted(lambda x, y: answer(holed, whole, whole, iou=[0.95, 0.1, 0.1], uncertainty=uncertainty))
    (cleaned,) = AutomaticMaskGenerator(alone, min_mask_region_area=5, **settings).generate(IMAGE)
    assert (cleaned["area"], cleaned["bbox"]) == (100, [2, 2, 9, 9])
    assert cleaned["uncertainty_mean"] == pytest.approx(uncertainty[0][whole > 0].mean(), rel=1e-5)


def test_suppression_against_its_definition(rng):
    for threshold in (0.0, 0.3, 0.7, 1.0):
        corners = np.sort(rng.integers(0, 30, (60, 2, 2)), axis=1)
        boxes = corners.reshape(60, 4).astype(float)
        scores = rng.integers(0, 10, 60) / 10  # with ties
        kept = []
        for i in sorted(range(60), key=lambda i: (-scores[i], i)):
            overlaps = []
            for j in kept:
                width = min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0])
                height = min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1])
                shared = max(width, 0) * max(height, 0)
                union = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (boxes[i], boxes[j])) - shared
                overlaps.append(shared / union if union else 0.0)
            if all(overlap <= threshold for overlap in overlaps):
                kept.append(i)
        assert box_nms(boxes, scores, threshold).tolist() == kept
    assert box_nms(np.zeros((0, 4)), np.zeros(0), 0.5).tolist() == []


def test_small_regions_by_hand():
    mask = np.zeros((9, 12), bool)
    mask[0:5, 0:5] = True
    mask[2, 2] = False  # hole of 1
    mask[5, 5] = True  # touches the square at a corner: the same island
    mask[7:9, 9:12] = True  # island of 6
    expected = mask.copy()
    expected[2, 2] = True
    for least, result, changed in ((1, mask, False), (2, expected, True), (6, expected, True)):
        found, is_changed = remove_small_regions(mask, least)
        np.testing.assert_array_equal(found, result)
        assert is_changed == changed
    expected[7:9, 9:12] = False
    np.testing.assert_array_equal(remove_small_regions(mask, 7)[0], expected)
    lonely = np.zeros((40, 40), bool)
    lonely[1:3, 1:4] = lonely[20, 20] = True
    np.testing.assert_array_equal(remove_small_regions(lonely, 50)[0], lonely & (np.arange(40) < 10))


def test_the_grid_is_of_cell_centres():
    np.testing.assert_allclose(point_grid(2), [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"points_per_side": 0}, "points_per_side: expected at least 1, found 0"),
        ({"points_per_batch": 0}, "points_per_batch: expected at least 1, found 0"),
        ({"pred_iou_thresh": 1.5}, r"pred_iou_thresh: expected from 0 to 1, found 1\.5"),
        ({"stability_score_thresh": -0.1}, "stability_score_thresh: expected from 0 to 1"),
        ({"stability_score_offset": -1.0}, "stability_score_offset: expected at least 0"),
        ({"box_nms_thresh": 7.0}, "box_nms_thresh: expected from 0 to 1"),
        ({"min_mask_region_area": -1}, "min_mask_region_area: expected at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        AutomaticMaskGenerator(Scripted(quadrant), **settings)


def test_unknown_choices_are_refused():
    with pytest.raises(UserError, match="output_mode: expected 'binary_mask' or 'coco_rle', found 'png'"):
        automatic._check_choice("output_mode", "png", ("binary_mask", "coco_rle"))


def test_with_a_network_nothing_compiles_anew_and_records_agree_with_predict():
    predictor = Predictor(create_model("nano", "weibull", rngs=nnx.Rngs(0)), image_size=SIZE)
    generator = AutomaticMaskGenerator(
        predictor, points_per_side=3, points_per_batch=4, pred_iou_thresh=0.0, stability_score_thresh=0.0,
        box_nms_thresh=1.0,
    )  # fmt: skip
    images = [np.random.default_rng(seed).integers(0, 256, (50, 70 + seed, 3), np.uint8) for seed in range(2)]
    first = generator.generate(images[0])
    before = automatic._measure._cache_size()
    generator.generate(images[1])
    assert automatic._measure._cache_size() == before
    predictor.set_image(images[0])
    for record in first:
        found = predictor.predict(record["point_coords"], [1])
        place = int(np.argmin(np.abs(found.iou_predictions - record["predicted_iou"])))
        mask = found.masks[place]
        assert (record["segmentation"] != mask).mean() <= 1e-3
        assert record["area"] == pytest.approx(mask.sum(), rel=1e-2, abs=2)
        inside = found.uncertainty[place][record["segmentation"]]
        assert record["uncertainty_mean"] == pytest.approx(inside.mean(), abs=1e-4)
    assert len(first) == 27
