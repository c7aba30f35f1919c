"""Draws `stars.png`, an image to try the commands on: `python docs/images/make_example.py`."""

from pathlib import Path

from PIL import Image

from ruac_jax.data.shapes import ShapesSource

if __name__ == "__main__":
    record = ShapesSource("spiky", "validation", size=256, num_images=40)[3]
    Image.fromarray(record["image"]).save(Path(__file__).with_name("stars.png"))
