"""Prompts of StyleGen: two generic ones, and nine that name the target domains on which SAM2 is weakest.

The paper (appendix P.2) gives the numbers, two "spanning all target domains" and nine for the eleven domains "below the
average J&F", overlapping ones merged, with "egocentric kitchen" for VISOR and GTEA as its one example. In its table 1
exactly eleven domains are below the average of the row SAM2; those are meant here. It does not print the words: all of
them, and the second merger (Cityscapes with WoodScape), are ours.
"""

import re
from pathlib import Path

from ruac_jax.errors import UserError

GENERIC = {
    "everyday": "the same scene as a photo of another place, other weather, other light, another camera",
    "instrument": "the same scene in a scientific or industrial imaging instrument, unusual colours and contrast",
}
TARGETED = {
    "underwater-trash": "murky underwater video of litter on the sea floor, blue-green water",  # TrashCan
    "tangled-parts": "computer rendering of a heap of identical tangled parts, plain material",  # iShape
    "camera-trap": "camera trap picture of wildlife at night, infrared flash, grey",  # Plittersdorf
    "driving": "city street through the windscreen of a car, overcast day",  # Cityscapes, WoodScape
    "cluttered-scene": "amateur photo of a cluttered everyday place, indoors or outdoors",  # ADE20K
    "rendered-interior": "photorealistic computer rendering of a furnished room, soft global light",  # Hypersim
    "parking-lot": "surveillance camera high above a parking lot, dusk and rain",  # NDISPark
    "xray-luggage": "X-ray scan of luggage, translucent, false colours orange, green and blue",  # PIDRay
    "egocentric-kitchen": "egocentric video of hands at work in a kitchen, head camera, motion blur",  # VISOR, GTEA
}
SETS = {"generic": GENERIC, "targeted": TARGETED}


def read_prompts(name: str) -> dict[str, str]:
    """Style -> prompt.

    Args:
      name: "generic", "targeted", or a text file of one prompt a line; empty lines and lines that begin with # are
        skipped. A file's styles are named after their first words.

    Raises:
      UserError: no such file, or it has no prompts, or one twice.
    """
    if name in SETS:
        return dict(SETS[name])
    try:
        lines = [line.strip() for line in Path(name).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--prompts {name}: expected {', '.join(SETS)} or a text file ({error})") from error
    prompts = [line for line in lines if line and not line.startswith("#")]
    if not prompts:
        raise UserError(f"--prompts {name} holds no prompt: expected one a line")
    if len(set(prompts)) < len(prompts):
        raise UserError(f"--prompts {name} holds a prompt twice")
    return {f"{number:02d}-{slug(prompt)}": prompt for number, prompt in enumerate(prompts)}


def slug(prompt: str) -> str:
    """The first words of a prompt as a folder's name: lower case, at most 40 characters."""
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:40].strip("-") or "prompt"
