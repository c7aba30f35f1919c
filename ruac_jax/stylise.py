"""Stylised copies of images: `python -m ruac_jax.stylise --dataset mose --prompts generic --model SD --output DIR`.

`--model` is the folder of a Stable Diffusion 1.5 checkpoint in diffusers' layout, or `stand-in`: filters that need no
checkpoint. A run that was stopped is continued by the same command. Training reads the copies by
`--config.data.stylised=DIR` (docs/stylised.md).
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from ruac_jax.data.copies import Stylise, make_copies
from ruac_jax.data.diffusion import load_diffusion
from ruac_jax.data.sources import GENERATED, load_source
from ruac_jax.data.stand_in import STAND_IN, stand_in_stylisation
from ruac_jax.data.style_prompts import read_prompts
from ruac_jax.data.styled import Manifest
from ruac_jax.errors import UserError, run_main

_GENERATED_IMAGES = 2000


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    options = flags.FLAGS
    for flag in ("dataset", "prompts", "model", "output"):
        if not options[flag].value:
            raise UserError(f"--{flag} is missing; see --help")
    if not 0 < options.strength <= 1:
        raise UserError(f"--strength {options.strength}: expected more than 0 and at most 1")
    prompts = read_prompts(options.prompts)
    generated = options.dataset.startswith(GENERATED)
    source = load_source(
        options.dataset,
        options.split,
        data_dir=options.data_dir,
        size=options.size,
        num_images=options.num_images or _GENERATED_IMAGES,
        clips=options.clips,
    )
    count = min(options.num_images or len(source), len(source))
    # A generated dataset of another size is another one.
    dataset = f"{options.dataset}, {options.split}" + (f", {options.size} px" if generated else "")
    model = options.model if options.model == STAND_IN else str(Path(options.model).resolve())
    manifest = Manifest(dataset, model, prompts, options.strength, options.seed)
    stylise, ending = _stylise(options.model, options.strength)
    made = make_copies(source, count, stylise, manifest, Path(options.output), ending)
    print(f"{made} copies of {count} images in {len(prompts)} styles written to {options.output}")


def _stylise(model: str, strength: float) -> tuple[Stylise, str]:
    if model == STAND_IN:
        return lambda image, prompt, seed: stand_in_stylisation(image, prompt, seed, strength), ".png"
    return load_diffusion(Path(model), strength), ".jpg"


if __name__ == "__main__":
    flags.DEFINE_string("dataset", "", "Name of a prepared dataset, or shapes/DOMAIN.")
    flags.DEFINE_string("data_dir", "datasets", "Where prepared datasets lie.")
    flags.DEFINE_string("split", "train", "Its split.")
    flags.DEFINE_string("clips", "", "File of clip names to keep, one a line.")
    flags.DEFINE_string("prompts", "", "generic (2), targeted (9), or a text file of one prompt a line.")
    flags.DEFINE_string("model", "", "Folder of a Stable Diffusion checkpoint, or stand-in.")
    flags.DEFINE_string("output", "", "Folder for the copies.")
    flags.DEFINE_integer("num_images", 0, "The first so many; 0: all (2000 of a generated dataset).", lower_bound=0)
    flags.DEFINE_integer("size", 128, "Side of generated images, px.", lower_bound=16)
    flags.DEFINE_float("strength", 0.5, "How far a copy may leave its original, in (0, 1].")
    flags.DEFINE_integer("seed", 0, "Of all random numbers.", lower_bound=0)
    run_main(main)
