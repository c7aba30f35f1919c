"""Hand-made Supervisely annotations, for the tests of the reader and of the builder."""

import base64
import io
import json
import zlib

import numpy as np
from PIL import Image

from .coco_tree import SIZE


def bitmap(box, *, title="trash", tags=({"name": "material", "value": "etc"},), alpha=None, **more):
    """An entry of `objects` that fills a box (x0, y0, x1, y1), ends excluded, or has these values of alpha in it."""
    x0, y0, x1, y1 = box
    pixels = np.full((y1 - y0, x1 - x0, 4), 255, np.uint8)
    if alpha is not None:
        pixels[..., 3] = alpha
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    data = base64.b64encode(zlib.compress(buffer.getvalue())).decode()
    return {
        "id": 1,
        "geometryType": "bitmap",
        "classTitle": title,
        "tags": list(tags),
        "bitmap": {"data": data, "origin": [x0, y0]},
        **more,
    }


def write_bitmaps(file, objects, size=SIZE):
    """An annotation file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"tags": [], "size": {"height": size[0], "width": size[1]}, "objects": objects}))
    return file
