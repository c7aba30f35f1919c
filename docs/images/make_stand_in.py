"""Draws docs/images/stand_in.jpg: images of the source domain and their copies by the stand-in for diffusion."""

from pathlib import Path

import numpy as np
from PIL import Image

from ruac_jax.data.copies import copy_seed
from ruac_jax.data.shapes import SOURCE, ShapesSource
from ruac_jax.data.stand_in import stand_in_stylisation
from ruac_jax.data.style_prompts import GENERIC, TARGETED

IMAGES, STRENGTH, SEED = 4, 0.5, 0

if __name__ == "__main__":
    rows = []
    for index in range(IMAGES):
        record = ShapesSource(SOURCE)[index]
        image, name = record["image"], record["image_id"]
        copies = [
            stand_in_stylisation(image, prompt, copy_seed(SEED, prompt, name), STRENGTH)
            for prompt in (*GENERIC.values(), *TARGETED.values())
        ]
        rows.append(np.concatenate([image, *copies], axis=1))
    Image.fromarray(np.concatenate(rows)).save(Path(__file__).with_name("stand_in.jpg"), quality=88)
