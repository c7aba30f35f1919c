"""Stylised copies by image-to-image diffusion (paper appendix P.2: Stable Diffusion 1.5), from a checkpoint on disk.

PyTorch and `diffusers` are needed here and nowhere else; nothing is downloaded. Steps and guidance are the pipeline's
usual ones; the paper gives neither them nor the strength.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ruac_jax.data.copies import Stylise
from ruac_jax.errors import UserError

STEPS, GUIDANCE = 50, 7.5
SHORT_SIDE = 512  # px, what Stable Diffusion 1.5 was trained on
_MULTIPLE = 8  # its encoder halves three times


def load_diffusion(folder: Path, strength: float) -> Stylise:
    """Opens a Stable Diffusion checkpoint; on a GPU in half precision where PyTorch has one.

    Args:
      folder: in the layout of `diffusers`, with `model_index.json`.
      strength: share of the noise schedule that is run, in (0, 1].

    Raises:
      UserError: no such checkpoint, or PyTorch, `diffusers` or `transformers` are not installed.
    """
    check_checkpoint(folder)
    try:
        torch, diffusers = importlib.import_module("torch"), importlib.import_module("diffusers")
        importlib.import_module("transformers")
    except ImportError as error:
        raise UserError(
            f"diffusion needs more packages ({error}): pip install torch diffusers transformers accelerate"
        ) from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        pipeline = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(
            str(folder),
            local_files_only=True,
            safety_checker=None,  # it would replace copies by black images
            requires_safety_checker=False,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"--model {folder} cannot be opened as Stable Diffusion: {line:.300}") from error
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device, torch.float16 if device == "cuda" else torch.float32)
    return by_pipeline(pipeline, lambda seed: torch.Generator("cpu").manual_seed(seed), strength)


def check_checkpoint(folder: Path) -> None:
    """Looks for a Stable Diffusion checkpoint.

    Raises:
      UserError: none there; says what was expected.
    """
    expected = "expected the folder of a Stable Diffusion checkpoint in diffusers' layout (model_index.json in it)"
    try:
        kind = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--model {folder}: {expected}, or 'stand-in'") from error
    if not str(kind).startswith("StableDiffusion") or "XL" in str(kind):
        raise UserError(f"--model {folder} is a {kind}; {expected}")


def by_pipeline(pipeline: Any, generator: Any, strength: float) -> Stylise:
    """Stylises by an image-to-image pipeline.

    Args:
      pipeline: called as `diffusers.StableDiffusionImg2ImgPipeline`.
      generator: makes PyTorch's random generator from a seed.
      strength: in (0, 1].
    """

    def stylise(image: UInt8[np.ndarray, "h w 3"], prompt: str, seed: int) -> UInt8[np.ndarray, "h w 3"]:
        height, width = image.shape[:2]
        small = Image.fromarray(image).resize(diffusion_size(height, width)[::-1], Image.Resampling.LANCZOS)
        copy = pipeline(
            prompt=prompt,
            image=small,
            strength=strength,
            guidance_scale=GUIDANCE,
            num_inference_steps=STEPS,
            generator=generator(seed),
        ).images[0]
        return np.array(copy.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))

    return stylise


def diffusion_size(height: int, width: int) -> tuple[int, int]:
    """Height and width that the pipeline works in: 512 px on the short side, both multiples of 8."""
    scale = SHORT_SIDE / min(height, width)
    return _rounded(height * scale), _rounded(width * scale)


def _rounded(length: float) -> int:
    return max(1, round(length / _MULTIPLE)) * _MULTIPLE
