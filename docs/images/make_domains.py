"""Draws docs/images/domains.jpg: `python docs/images/make_domains.py`."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ruac_jax.data.shapes import SOURCE, TARGETS, ShapesSource
from ruac_jax.evaluation.figures import overlay

SIZE, COLUMNS = 128, 7


def tile(domain: str) -> Image.Image:
    """One validation image of a domain above the same image with its objects marked."""
    record = ShapesSource(domain, "validation", size=SIZE, num_images=4)[1]
    marked = overlay(record["image"], record["masks"])
    title = Image.new("RGB", (SIZE, 14), "white")
    ImageDraw.Draw(title).text((4, 1), domain if domain == SOURCE else f"{domain} ({TARGETS[domain]})", fill="black")
    return Image.fromarray(np.concatenate([np.asarray(title), record["image"], marked]))


def main() -> None:
    """Arranges all domains in two rows."""
    tiles = [np.asarray(tile(domain)) for domain in (SOURCE, *TARGETS)]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % COLUMNS)
    rows = [np.concatenate(tiles[i : i + COLUMNS], axis=1) for i in range(0, len(tiles), COLUMNS)]
    Image.fromarray(np.concatenate(rows)).save(Path(__file__).with_name("domains.jpg"), quality=90)


if __name__ == "__main__":
    main()
