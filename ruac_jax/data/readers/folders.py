"""Images in one place and their label maps, or folders of one file per object, under the same names in another."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from ruac_jax.data.dataset import Listing, Sample
from ruac_jax.data.files import IMAGE_ENDINGS, list_files, list_folders
from ruac_jax.data.masks import RunLengthMasks
from ruac_jax.data.names import natural_key
from ruac_jax.data.readers.instance_files import read_instance_files
from ruac_jax.data.readers.label_map import LABEL_ENDINGS, read_colour_map
from ruac_jax.errors import UserError


def list_pairs(
    images: Iterable[tuple[str, Path]],
    annotations: Iterable[tuple[str, Path]],
    read: Callable[[Path, tuple[int, int]], RunLengthMasks],
) -> Listing:
    """Brings images and annotations of the same id together; whatever is alone or there twice is a problem.

    Args:
      images: (image id, file).
      annotations: (image id, file or folder).
      read: reads an annotation, given the image's (height, width); picklable.
    """
    problems: list[str] = []
    image_of, annotation_of = _by_id(images, problems), _by_id(annotations, problems)
    problems += [f"{image_of[name]}: no annotation of that name" for name in image_of.keys() - annotation_of.keys()]
    problems += [f"{annotation_of[name]}: no image of that name" for name in annotation_of.keys() - image_of.keys()]
    samples = [
        Sample(name, image_of[name], partial(read, annotation_of[name]), (annotation_of[name],))
        for name in sorted(image_of.keys() & annotation_of.keys(), key=natural_key)
    ]
    return Listing(samples, sorted(problems))


def list_tree(folder: Path, endings: Sequence[str]) -> list[tuple[str, Path]]:
    """(path below the folder without ending, file) of all files with these endings, at any depth."""
    files = list_files(folder, endings)
    for child in list_folders(folder):
        files += [file for _, file in list_tree(child, endings)]
    return [(file.relative_to(folder).with_suffix("").as_posix(), file) for file in files]


def list_label_folder(images: Path, labels: Path) -> Listing:
    """A user's own data: each image's label map `labels/<stem>.png`, or folder `labels/<stem>` of a PNG per object.

    In a label map every value or colour but 0, black or transparent is an object; in a file per object every pixel
    above 0 is the object's. TIFF and BMP will do as well as PNG. An image without objects has an empty map or folder.

    Raises:
      UserError: no image or no label there, or both in one folder.
    """
    if images.resolve() == labels.resolve():
        raise UserError(f"{images} holds both images and labels: put the labels into a folder of their own")
    image_files = list_files(images, IMAGE_ENDINGS)
    if not image_files:
        raise UserError(f"no image in {images}: expected files that end in {', '.join(IMAGE_ENDINGS)}")
    maps, folders = list_files(labels, LABEL_ENDINGS), list_folders(labels)
    if not maps and not folders:
        raise UserError(
            f"no label in {labels}: expected for each image, say {image_files[0].name}, a label map "
            f"{image_files[0].stem}.png, or a folder {image_files[0].stem} with one PNG per object"
        )
    listing = list_pairs(
        ((file.stem, file) for file in image_files),
        [(file.stem, file) for file in maps] + [(folder.name, folder) for folder in folders],
        _read_labels,
    )
    return listing._replace(samples=[sample._replace(files=_files(sample.files[0])) for sample in listing.samples])


def _read_labels(label: Path, size: tuple[int, int]) -> RunLengthMasks:
    return read_instance_files(_files(label), size) if label.is_dir() else read_colour_map(label, size)


def _files(label: Path) -> tuple[Path, ...]:
    return tuple(list_files(label, LABEL_ENDINGS)) if label.is_dir() else (label,)


def _by_id(files: Iterable[tuple[str, Path]], problems: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name, file in files:
        if name in found:
            problems.append(f"{file}: a second file for {name}, after {found[name]}")
        else:
            found[name] = file
    return found
