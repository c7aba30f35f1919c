"""Stylised copies for the StyleGen rows of the shift benchmark, by filters where the paper has a diffusion model.

Generated images have no use for a diffusion model, and the benchmark runs offline. The rows say that it is a stand-in.
"""

import dataclasses
import functools
from pathlib import Path

from ruac_jax.config import Config
from ruac_jax.data.copies import make_copies
from ruac_jax.data.sources import load_source
from ruac_jax.data.stand_in import STAND_IN, stand_in_stylisation
from ruac_jax.data.style_prompts import read_prompts
from ruac_jax.data.styled import Manifest
from ruac_jax.sam2.variants import variant

STRENGTH = 0.5


def with_stand_ins(config: Config, folder: Path) -> Config:
    """Makes the copies that a run asks for, `stylised/PROMPTS`, under `folder` and points the run to them."""
    if not config.data.stylised:
        return config
    prompts = read_prompts(Path(config.data.stylised).name)
    data = config.data
    size = config.image_size or variant(config.model.variant).image_size
    source = load_source(data.dataset, data.split, data_dir=data.data_dir, size=size, num_images=data.num_images)
    copies = folder / config.data.stylised
    manifest = Manifest(f"{data.dataset}, {data.split}, {size} px", STAND_IN, prompts, STRENGTH, 0)
    stylise = functools.partial(stand_in_stylisation, strength=STRENGTH)
    make_copies(source, len(source), stylise, manifest, copies, ".png")
    return dataclasses.replace(config, data=dataclasses.replace(data, stylised=str(copies)))
