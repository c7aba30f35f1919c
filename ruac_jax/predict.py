"""Segments your own images, with uncertainty (docs/predict_command.md).

One object by clicks, of which those ending in ,0 are on the background:
  python -m ruac_jax.predict photo.jpg --checkpoint MODEL --point 420,310 --point 500,90,0 --output out

Several objects by boxes, all three hypotheses of each:
  python -m ruac_jax.predict photo.jpg --checkpoint MODEL --box 10,20,90,80 --box 30,40,42,55 --multimask --output out

Everything, in every image of a folder:
  python -m ruac_jax.predict photos/ --checkpoint MODEL --auto --output out

Coordinates are pixels of the upright image; an integer is the centre of a pixel. Each image gets a folder with masks,
uncertainty (coloured PNG and float32 .npy), an overlay picture and prediction.json.
"""

import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from tqdm import tqdm

from ruac_jax.automatic import AutomaticMaskGenerator, MaskRecord
from ruac_jax.data.masks import RunLengthMasks
from ruac_jax.errors import UserError, run_main
from ruac_jax.evaluation.figures import save_figure
from ruac_jax.folders import check_output, new_folder
from ruac_jax.hub import find_checkpoint
from ruac_jax.picture_files import find_pictures, read_picture
from ruac_jax.pictures import Row, color_uncertainty, draw_everything, draw_prompted
from ruac_jax.predictor import Predictor
from ruac_jax.prompt_flags import ObjectPrompt, check_inside, parse_prompts
from ruac_jax.weights import load_metadata

SUMMARY = "predictions.json"
_DECIMALS = 6


def main(argv: Sequence[str]) -> None:
    """Runs the command: every mistake in flags and images is found before anything is computed or written."""
    options = flags.FLAGS
    for name in ("checkpoint", "output"):
        if not options[name].value:
            raise UserError(f"--{name} is missing; see --help")
    if not argv[1:]:
        raise UserError("which image? Give files or folders; see --help")
    prompts = _check_prompts(options)
    output = Path(options.output)
    check_output(output, overwrite=options.overwrite, marker=SUMMARY, what="a folder of this command")
    checkpoint = find_checkpoint(options.checkpoint)
    metadata = load_metadata(checkpoint)
    pictures = find_pictures(argv[1:])
    for path in pictures.values():
        check_inside(prompts, read_picture(path).shape[:2], str(path))
    predictor = Predictor.from_checkpoint(checkpoint, image_size=options.image_size)

    common = {
        "checkpoint": {"path": options.checkpoint, "variant": metadata.variant, "fingerprint": metadata.fingerprint},
        "settings": {"image_size": predictor.image_size} | {name: options[name].value for name in _recorded(options)},
        "versions": {package: version(package) for package in ("ruac_jax", "jax", "flax")},
    }
    summary, lines = {}, []
    with new_folder(output) as unfinished:
        for name, path in tqdm(pictures.items(), unit="image", disable=len(pictures) < 2):
            image, folder = read_picture(path), unfinished / name
            folder.mkdir()
            if options.auto:
                found = _write_everything(folder, image, predictor, options)
            else:
                found = _write_prompted(folder, image, prompts, predictor, options)
            details = {"image": str(path), "width": image.shape[1], "height": image.shape[0], **found}
            _write_json(folder / "prediction.json", common | details)
            summary[name] = {"image": str(path), "masks": len(found["masks"])}
            lines += _lines(name, found["masks"], options.auto)
        _write_json(unfinished / SUMMARY, common | {"images": summary})
    if options.auto and not any(entry["masks"] for entry in summary.values()):
        limits = f"--least_iou {options.least_iou:g} and --least_stability {options.least_stability:g}"
        lines.append(f"no mask passed {limits}; a small or unsure network needs lower ones")
    print("\n".join([*lines, f"written to {output}"]))


def _check_prompts(options: Any) -> list[ObjectPrompt]:
    """The objects asked for; none with --auto, which goes with neither prompts nor draws."""
    if not options.auto:
        if (name := _given(options, _AUTOMATIC)) is not None:
            raise UserError(f"--{name} is about --auto, which is missing")
        return parse_prompts(options.point, options.box)
    if (name := _given(options, ("point", "box", "multimask", "samples", "seed"))) is not None:
        raise UserError(f"--auto segments everything by itself and has no use for --{name}; leave one of them out")
    if options.uncertainty != "analytic":
        raise UserError("--auto knows --uncertainty analytic alone")
    return []


_AUTOMATIC = ("points_per_side", "least_iou", "least_stability", "least_area")
_PROMPTED = ("multimask", "uncertainty", "variance", "samples", "seed", "doubtful_above")


def _given(options: Any, names: Sequence[str]) -> str | None:
    return next((name for name in names if options[name].present), None)


def _recorded(options: Any) -> Sequence[str]:
    return (*_AUTOMATIC, "variance") if options.auto else _PROMPTED


def _write_prompted(
    folder: Path, image: UInt8[np.ndarray, "h w 3"], prompts: Sequence[ObjectPrompt], predictor: Predictor, options: Any
) -> dict[str, Any]:
    """Masks, uncertainty and overlay of the objects asked for; what prediction.json says of them."""
    predictor.set_image(image)
    hypotheses = 3 if options.multimask else 1
    shown: list[list[tuple[np.ndarray, str]]] = [[] for _ in range(hypotheses)]
    doubt = np.zeros((hypotheses, *image.shape[:2]), np.float32)
    entries = []
    for number, prompt in enumerate(prompts, start=1):
        answer = predictor.predict(
            **prompt.arguments(),
            uncertainty=options.uncertainty,
            variance=options.variance,
            samples=options.samples,
            key=jax.random.fold_in(jax.random.key(options.seed), number),
        )
        ranked = np.argsort(-answer.iou_predictions, kind="stable")
        for place, which in enumerate(ranked[:hypotheses]):
            mask, uncertainty = answer.masks[which], answer.uncertainty[which]
            stem = f"object{number}" + (f"_hypothesis{place + 1}" if options.multimask else "")
            iou = float(answer.iou_predictions[which])
            entries.append(
                {
                    "object": number,
                    "hypothesis": place + 1,
                    "token": int(which) + 1,
                    "predicted_iou": round(iou, _DECIMALS),
                    **_measure(mask, uncertainty, options.doubtful_above),
                    "files": _write_maps(folder, stem, mask, uncertainty),
                }
            )
            shown[place].append((mask, f"object {number}, predicted IoU {iou:.2f}"))
            doubt[place] = np.maximum(doubt[place], uncertainty)
    rows = [
        Row(f"hypothesis {place + 1}" if options.multimask else "", *map(list, zip(*masks, strict=True)), doubt[place])
        for place, masks in enumerate(shown)
    ]
    save_figure(draw_prompted(image, prompts, rows, doubtful_above=options.doubtful_above), folder / "overlay.png")
    return {"overlay": "overlay.png", "prompts": [prompt._asdict() for prompt in prompts], "masks": entries}


def _write_maps(
    folder: Path, stem: str, mask: Bool[np.ndarray, "h w"], uncertainty: Float[np.ndarray, "h w"]
) -> dict[str, str]:
    files = {
        "mask": f"{stem}_mask.png",
        "uncertainty": f"{stem}_uncertainty.npy",
        "uncertainty_picture": f"{stem}_uncertainty.png",
    }
    Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(folder / files["mask"])
    np.save(folder / files["uncertainty"], uncertainty)
    Image.fromarray(color_uncertainty(uncertainty)).save(folder / files["uncertainty_picture"])
    return files


def _measure(
    mask: Bool[np.ndarray, "h w"], uncertainty: Float[np.ndarray, "h w"], doubtful_above: float
) -> dict[str, Any]:
    """Area, box (x, y, width, height: whole pixels) and uncertainty in and around a mask; None where it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    bounds = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1] if len(rows) else None
    inside = round(float(uncertainty[mask].mean(dtype=np.float64)), _DECIMALS) if len(rows) else None
    return {
        "area": int(mask.sum()),
        "bbox": bounds and [int(value) for value in bounds],
        "uncertainty_inside": inside,
        "uncertainty_image": round(float(uncertainty.mean(dtype=np.float64)), _DECIMALS),
        "doubtful_pixels": int((uncertainty > doubtful_above).sum()),
    }


def _write_everything(
    folder: Path, image: UInt8[np.ndarray, "h w 3"], predictor: Predictor, options: Any
) -> dict[str, Any]:
    """Run lengths, label map and overlay of all masks; what prediction.json says of them."""
    generator = AutomaticMaskGenerator(
        predictor,
        points_per_side=options.points_per_side,
        pred_iou_thresh=options.least_iou,
        stability_score_thresh=options.least_stability,
        min_mask_region_area=options.least_area,
        output_mode="coco_rle",
        sort_by="area",
        variance=options.variance,
    )
    records = generator.generate(image)
    labels = _label_map(records, image.shape[:2])
    Image.fromarray(labels).save(folder / "labels.png")
    means = [record["uncertainty_mean"] for record in records]
    save_figure(draw_everything(image, labels, means), folder / "overlay.png")
    masks = [{"label": number, **record} for number, record in enumerate(records, start=1)]
    return {"overlay": "overlay.png", "labels": "labels.png", "masks": masks}


def _label_map(records: Sequence[MaskRecord], size: tuple[int, int]) -> np.ndarray:
    """Numbers from 1 in the order of the records, uint16; the largest come first, so that smaller ones stay visible."""
    labels = np.zeros(size, np.uint16)
    masks = RunLengthMasks(size, [record["segmentation"]["counts"].encode() for record in records])
    for index in range(len(records)):
        labels[masks[index : index + 1][0]] = index + 1
    return labels


def _lines(name: str, masks: Sequence[dict[str, Any]], automatic: bool) -> list[str]:
    if automatic:
        return [f"{name}: {len(masks)} masks"]
    lines = []
    for entry in masks:
        inside = "none" if entry["uncertainty_inside"] is None else f"{entry['uncertainty_inside']:.3f}"
        lines.append(
            f"{name}: object {entry['object']}, hypothesis {entry['hypothesis']}: {entry['area']} px, "
            f"predicted IoU {entry['predicted_iou']:.3f}, mean uncertainty inside {inside}"
        )
    return lines


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _define_flags() -> None:
    flags.DEFINE_string("checkpoint", "", "Folder, file or name of a model (docs/checkpoints.md).")
    flags.DEFINE_multi_string("point", [], "x,y of a click on the object, or x,y,0 on the background; repeatable.")
    flags.DEFINE_multi_string("box", [], "x0,y0,x1,y1 around an object; repeatable, one for each object.")
    flags.DEFINE_bool("auto", False, "Segment everything, without prompts.")
    flags.DEFINE_string("output", "", "Folder to make.")
    flags.DEFINE_bool("overwrite", False, "Replace what this command wrote there before.")
    flags.DEFINE_bool("multimask", False, "All three hypotheses, best first (default: the best).")
    flags.DEFINE_enum("uncertainty", "analytic", ["analytic", "monte_carlo"], "How it is computed.")
    flags.DEFINE_enum("variance", "product", ["product", "full"], "Logit variance of the analytic one.")
    flags.DEFINE_integer("samples", 20, "Draws of the Monte Carlo one.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of these draws.", lower_bound=0, upper_bound=2**32 - 1)
    flags.DEFINE_float("doubtful_above", 0.5, "Uncertainty from which pixels are marked.", 0.0, 1.0)
    flags.DEFINE_integer("image_size", None, "Side of the network's square image, px (default: the model's).")
    flags.DEFINE_integer("points_per_side", 32, "--auto: a grid of this many by this many clicks.", lower_bound=1)
    flags.DEFINE_float("least_iou", 0.8, "--auto: masks have a higher predicted IoU.", 0.0, 1.0)
    flags.DEFINE_float("least_stability", 0.95, "--auto: masks are at least as stable.", 0.0, 1.0)
    flags.DEFINE_integer("least_area", 0, "--auto: smaller holes and islands go, px.", lower_bound=0)


if __name__ == "__main__":
    _define_flags()
    run_main(main, positional=sys.maxsize)
