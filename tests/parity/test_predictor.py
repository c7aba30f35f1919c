"""`Predictor` against SAM2ImagePredictor, and automatic masks against SAM2AutomaticMaskGenerator.

Bars of docs/parity.md: 1e-4 on logits, 1e-5 on the predicted IoU. Masks differ only where a logit is zero but for
that.
"""

import functools

import numpy as np
import pytest
import torch
from PIL import Image

from ruac_jax.automatic import AutomaticMaskGenerator
from ruac_jax.predictor import Predictor
from tests.parity import oracle, scenes, torchvision_stub
from tests.parity.weights import REDUCED, jax_model
from tests.real_data import real_data

torchvision_stub.install()
# torch.jit, which SAM2's transforms use, is deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

LOGITS, IOU = 1e-4, 1e-5
LOW = REDUCED.image_size // 4
SIZES = {"wide": (90, 231), "tall": (301, 64), "tiny": (37, 29), "square": (128, 128), "large": (400, 533)}


def picture(size, seed=0):
    scene = scenes.images(max(size), seed=seed)[0, : size[0], : size[1]]
    return np.clip(128 + 50 * scene, 0, 255).astype(np.uint8)


@functools.cache
def networks(seed=0):
    reference = oracle.torch_model(REDUCED, seed)
    with torch.no_grad():  # steeper logits: some masks become stable
        for parameter in reference.sam_mask_decoder.output_hypernetworks_mlps[0].layers[2].parameters():
            parameter *= 4
    ours = jax_model(REDUCED, {name: tensor.numpy() for name, tensor in reference.state_dict().items()})
    return reference, Predictor(ours)


def fitted(predictor):
    predictor._bb_feat_sizes = [(LOW, LOW), (LOW // 2, LOW // 2), (LOW // 4, LOW // 4)]  # constants of 1024 px there
    return predictor


def theirs():
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    return fitted(SAM2ImagePredictor(networks()[0]))


def prompts(size, seed=0):
    rng = np.random.default_rng(seed)
    height, width = size

    def points(*shape):
        return rng.uniform(0, 1, (*shape, 2)) * [width, height]

    def box(*shape):
        corners = np.sort(rng.uniform(0, 1, (*shape, 2, 2)), axis=-2) * [width, height]
        return corners.reshape(*shape, 4)

    mask = (8 * rng.standard_normal((1, LOW, LOW))).astype(np.float32)
    masks = (8 * rng.standard_normal((3, 1, LOW, LOW))).astype(np.float32)
    return {
        "one point": {"point_coords": points(1), "point_labels": [1]},
        "points": {"point_coords": points(2), "point_labels": [1, 0]},
        "padding point": {"point_coords": points(2), "point_labels": [1, -1]},
        "rows of points": {"point_coords": points(4, 2), "point_labels": [[1, 0]] * 4},
        "box": {"box": box()},
        "boxes": {"box": box(3)},
        "box and points": {"box": box(), "point_coords": points(2), "point_labels": [0, 1]},
        "boxes and points": {"box": box(3), "point_coords": points(3, 1), "point_labels": [[0], [1], [1]]},
        "mask": {"mask_input": mask},
        "point and mask": {"point_coords": points(1), "point_labels": [1], "mask_input": mask},
        "boxes and one mask": {"box": box(3), "mask_input": mask},
        "boxes and masks": {"box": box(3), "mask_input": masks},
        "nothing": {},
        "fractions": {"point_coords": rng.uniform(0, 1, (2, 2)), "point_labels": [1, 1], "normalize_coords": False},
    }


def agree(ours, expected, ours_logits, expected_logits):
    masks, iou, low = expected
    assert ours.masks.shape == masks.shape
    assert ours.low_res_logits.shape == low.shape
    np.testing.assert_allclose(ours.low_res_logits, low, atol=LOGITS)
    np.testing.assert_allclose(ours.iou_predictions, iou, atol=IOU)
    np.testing.assert_allclose(ours_logits, expected_logits, atol=LOGITS)
    assert (np.abs(expected_logits[ours.masks != (masks > 0)]) <= LOGITS).all()
    assert ours.uncertainty.shape == masks.shape


def compare(ours, reference, arguments):
    answers = [predict(**arguments, return_logits=logits) for predict in (ours, reference) for logits in (False, True)]
    agree(answers[0], answers[2], answers[1].masks, answers[3][0])
    return answers[0]


@pytest.mark.parametrize(
    ("name", "multimask"),
    [
        pytest.param("wide", True, marks=pytest.mark.slow),
        *((name, True) for name in SIZES if name != "wide"),
        ("wide", False),
        ("tiny", False),
    ],
)
def test_every_kind_of_prompt(name, multimask):
    image = picture(SIZES[name])
    reference, (_, ours) = theirs(), networks()
    reference.set_image(image)
    ours.set_image(image)
    kinds = prompts(SIZES[name])
    if (name, multimask) != ("wide", True):  # the others share their compilations
        kinds = {kind: kinds[kind] for kind in ("points", "boxes", "mask", "fractions")}
    for arguments in kinds.values():
        compare(ours.predict, reference.predict, arguments | {"multimask_output": multimask})


def test_both_outcomes_of_the_single_mask_are_among_them():
    _, ours = networks()
    ours.set_image(picture(SIZES["wide"]))
    single = []
    for seed in range(5):
        given = prompts(SIZES["wide"], seed)["rows of points"]
        several, one = (ours.predict(**given, multimask_output=many) for many in (True, False))
        single += (one.iou_predictions == several.iou_predictions).any(axis=1).tolist()
    assert 0 < sum(single) < len(single)


def test_feeding_logits_back():
    image = picture(SIZES["large"], 1)
    reference, (_, ours) = theirs(), networks()
    reference.set_image(image)
    ours.set_image(image)
    click = {"point_coords": [[200, 150]], "point_labels": [1]}
    best = int(np.argmax(reference.predict(np.array([[200, 150]]), np.array([1]))[1]))
    first = ours.predict(**click)
    compare(
        ours.predict,
        reference.predict,
        click | {"mask_input": first.low_res_logits[best : best + 1], "multimask_output": False},
    )


@pytest.mark.parametrize("multimask", [True, False])
def test_a_ragged_batch(multimask):
    images = [picture(size, seed) for seed, size in enumerate(SIZES.values())]
    reference, (_, ours) = theirs(), networks()
    reference.set_image_batch(images)
    ours.set_image_batch(images)
    kinds = ["one point", "boxes", "mask", "boxes and points", "points"]
    each = [prompts(size, 7)[kind] for kind, size in zip(kinds, SIZES.values(), strict=True)]
    names = ("point_coords", "point_labels", "box", "mask_input")
    arguments = {f"{name}_batch": [given.get(name) for given in each] for name in names}
    arguments["multimask_output"] = multimask
    answers = [
        predict(**arguments, return_logits=logits)
        for predict in (ours.predict_batch, reference.predict_batch)
        for logits in (False, True)
    ]
    for image in range(len(images)):
        expected = [tuple(part[image] for part in answer) for answer in answers[2:]]
        agree(answers[0][image], expected[0], answers[1][image].masks, expected[1][0])


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_other_pictures_are_what_pil_makes_of_them(mode):
    """Without transparency, SAM2 cannot read these itself."""
    given = Image.fromarray(picture(SIZES["wide"])).convert(mode)
    reference, (_, ours) = theirs(), networks()
    reference.set_image(np.array(given.convert("RGB")))
    for image in (given, np.array(given)) if mode != "P" else (given,):
        ours.set_image(image)
        compare(ours.predict, reference.predict, prompts(SIZES["wide"])["points"])


def test_a_photograph():
    path = sorted((real_data("coco128_seg") / "images").rglob("*.jpg"))[0]
    image = Image.open(path)
    reference, (_, ours) = theirs(), networks()
    reference.set_image(image)
    ours.set_image(image)
    kinds = prompts((image.height, image.width), 1)
    for kind in ("points", "boxes", "mask"):
        compare(ours.predict, reference.predict, kinds[kind])


@pytest.mark.parametrize("name", ["wide", "tiny"])
def test_automatic_masks(name, monkeypatch):
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

    settings = {
        "points_per_side": 6,
        "points_per_batch": 16,
        "pred_iou_thresh": 0.6,
        "stability_score_thresh": 0.6,
        "stability_score_offset": 0.05,
        "box_nms_thresh": 0.7,
    }
    reference, ours = networks()
    # Random weights give masks all over the image; high up they fall apart into different ones.
    generator = SAM2AutomaticMaskGenerator(reference, mask_threshold=2.0, **settings)
    fitted(generator.predictor)
    image = picture(SIZES[name], 2)
    monkeypatch.setattr(ours, "mask_threshold", 2.0)
    expected, found = generator.generate(image), AutomaticMaskGenerator(ours, **settings).generate(image)
    assert len(found) == len(expected) > 2
    for mine, other in zip(found, expected, strict=True):
        assert mine["predicted_iou"] == pytest.approx(other["predicted_iou"], abs=IOU)
        assert mine["stability_score"] == pytest.approx(other["stability_score"], abs=1e-3)
        assert mine["point_coords"] == other["point_coords"]
        assert (mine["segmentation"] != other["segmentation"]).mean() <= 1e-4
        assert mine["area"] == mine["segmentation"].sum()
        np.testing.assert_allclose(mine["bbox"], other["bbox"], atol=1)
