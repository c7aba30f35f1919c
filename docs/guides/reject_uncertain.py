"""What leaving the most uncertain pixels to a person buys: `python docs/guides/reject_uncertain.py [CHECKPOINT]`.

Segments the objects of generated images from one click each and counts wrong pixels in a window around each object (its
box, widened by half its size on every side): among all of them, and among those that are left when the most uncertain
5, 10 and 20 % are handed over.
"""

import sys

import numpy as np

from ruac_jax import Predictor
from ruac_jax.data.shapes import ShapesSource
from ruac_jax.evaluation.tables import markdown_table
from ruac_jax.prompts import fixed_clicks

DOMAINS = ("source", "fog", "lowlight", "texture", "spiky", "logs", "roofs")
IMAGES = 20
REJECTED = (0.0, 0.05, 0.1, 0.2)


def window(mask: np.ndarray) -> tuple[slice, slice]:
    """The object's box, widened by half its size on every side."""
    spans = []
    for axis in (1, 0):
        places = np.flatnonzero(mask.any(axis=axis))
        margin = (places[-1] - places[0] + 1) // 2
        spans.append(slice(max(places[0] - margin, 0), places[-1] + margin + 1))
    return spans[0], spans[1]


def pixels(predictor: Predictor, domain: str) -> tuple[np.ndarray, np.ndarray]:
    """(wrong, uncertainty) of every pixel around every object of a domain."""
    source = ShapesSource(domain, "validation", size=predictor.image_size, num_images=IMAGES)
    wrong, uncertain = [], []
    for record in (source[i] for i in range(IMAGES)):
        predictor.set_image(record["image"])
        for truth in record["masks"]:
            points, labels = fixed_clicks(truth, 1)
            masks, iou, _, uncertainty = predictor.predict(points, labels)
            best, around = np.argmax(iou), window(truth)
            wrong.append((masks[best] != truth)[around].ravel())
            uncertain.append(uncertainty[best][around].ravel())
    return np.concatenate(wrong), np.concatenate(uncertain)


def accuracies(wrong: np.ndarray, uncertainty: np.ndarray) -> list[float]:
    """Share of right pixels among those kept, for each share that is rejected."""
    order = np.argsort(uncertainty, kind="stable")
    return [float(1 - wrong[order[: round(len(wrong) * (1 - share))]].mean()) for share in REJECTED]


def main() -> None:
    """Prints the table."""
    predictor = Predictor.from_checkpoint(sys.argv[1] if len(sys.argv) > 1 else "nano")
    rows = [[domain, *(f"{100 * a:.2f}" for a in accuracies(*pixels(predictor, domain)))] for domain in DOMAINS]
    print(markdown_table(["pixel accuracy (%)", *(f"{share:.0%} rejected" for share in REJECTED)], rows))


if __name__ == "__main__":
    main()
