"""Hand-made COCO files and images, for the tests of the reader, the builders and commands.

Objects are boxes (x0, y0, x1, y1) of whole pixels, ends excluded, so that a test can draw their masks by itself.
"""

import json

import numpy as np
from PIL import Image
from pycocotools import mask as coco

SIZE = (24, 32)  # height, width


def box_mask(*boxes, size=SIZE):
    """Union of boxes."""
    mask = np.zeros(size, bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


def ring(x0, y0, x1, y1):
    """A box's outline as COCO writes polygons."""
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def runs(mask):
    """Uncompressed run lengths, counted one pixel after the other."""
    counts, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": counts}


def packed(mask):
    """Compressed run lengths by the COCO tools."""
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def write_image(file, size=SIZE):
    """An image of noise; PNG or JPEG by its name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(file.name)).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(file)


def entry(number, file_name, size=SIZE, **more):
    """An entry of `images`."""
    return {"id": number, "file_name": file_name, "height": size[0], "width": size[1], **more}


def annotation(number, image, segmentation, **more):
    """An entry of `annotations`."""
    return {"id": number, "image_id": image, "category_id": 1, "segmentation": segmentation, **more}


def write_coco(file, images, annotations, encoding="utf-8"):
    """A COCO file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    index = {"info": {}, "images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    file.write_bytes(json.dumps(index, ensure_ascii=False).encode(encoding))
    return file


def write_split(file, folder, objects, first_id=1, in_file="", size=SIZE):
    """A COCO file and its images: `objects` maps file names to the boxes of one polygon object each."""
    entries, annotations = [], []
    for number, (name, boxes) in enumerate(objects.items(), first_id):
        write_image(folder / name, size)
        entries.append(entry(number, in_file + name, size))
        annotations += [
            annotation(len(annotations) + index, number, [ring(*box)], iscrowd=0) for index, box in enumerate(boxes, 1)
        ]
    write_coco(file, entries, annotations)


def read(listing, size=SIZE):
    """Ids of the listing's images with their masks as arrays."""
    return {sample.image_id: sample.masks(size)[:] for sample in listing.samples}


def assert_masks(listing, expected, size=SIZE):
    """Checks ids, their order and every pixel; `expected` maps ids to lists of masks or of boxes."""
    found = read(listing, size)
    assert list(found) == list(expected)
    for image_id, objects in expected.items():
        masks = [box_mask(item, size=size) if isinstance(item, tuple) else item for item in objects]
        np.testing.assert_array_equal(found[image_id], np.array(masks, bool).reshape(-1, *size), err_msg=image_id)
