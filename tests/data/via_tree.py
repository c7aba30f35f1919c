"""Hand-made files of the VGG Image Annotator, for the tests of the reader and of the builders."""

import json

from .coco_tree import write_image


def box_points(x0, y0, x1, y1):
    """A box's corners, not closed."""
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def region(points, shape="polygon", **attributes):
    """An outline as VIA writes it."""
    x, y = ([point[axis] for point in points] for axis in (0, 1))
    return {
        "shape_attributes": {"name": shape, "all_points_x": x, "all_points_y": y},
        "region_attributes": attributes,
    }


def via_entry(name, regions, version):
    """An image's entry: version 1 has a dict of regions and some more fields, version 2 a list."""
    if version == 2:
        return {"filename": name, "size": 9, "regions": regions, "file_attributes": {}}
    numbered = {str(number): value for number, value in enumerate(regions)}
    return {
        "fileref": "",
        "size": 9,
        "filename": name,
        "base64_img_data": "",
        "file_attributes": {},
        "regions": numbered,
    }


def write_via(file, regions, version, images=None):
    """An annotation file, and in the folder `images` the images that it names."""
    file.parent.mkdir(parents=True, exist_ok=True)
    entries = {f"{name}9": via_entry(name, found, version) for name, found in regions.items()}
    file.write_text(json.dumps(entries))
    for name in regions if images is not None else ():
        write_image(images / name)
    return file
