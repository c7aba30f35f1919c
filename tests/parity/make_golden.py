"""Writes tests/data/sam2_reduced.npz, what PyTorch's sam2 answers: `python -m tests.parity.make_golden`.

Weights, image and prompts are functions of a seed (tests/parity/weights.py, tests/parity/scenes.py) and not stored, so
that tests/test_model.py can repeat the comparison without torch.
"""

from pathlib import Path

import numpy as np

from tests.parity import oracle, scenes
from tests.parity.weights import REDUCED

GOLDEN = Path(__file__).parent.parent / "data" / "sam2_reduced.npz"
SEED = 0


def main() -> None:
    """Runs the reduced network on one image and all kinds of prompts."""
    model = oracle.torch_model(REDUCED, SEED)
    prompts = scenes.prompts(REDUCED.image_size, SEED)
    features = oracle.torch_encode(model, scenes.images(REDUCED.image_size, seed=SEED))
    output = oracle.torch_decode(model, features, prompts, np.zeros(len(prompts.labels), int))
    GOLDEN.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        GOLDEN,
        embedding=features.embedding,
        logits=output.raw,
        iou=output.several_iou,
        object_score=output.object_score,
    )
    print(f"{GOLDEN.name}: {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
