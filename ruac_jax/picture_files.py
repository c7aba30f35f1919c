"""The pictures that a user names: files, or folders of them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ruac_jax.data.files import IMAGE_ENDINGS, list_files
from ruac_jax.errors import UserError
from ruac_jax.input_image import to_rgb


def find_pictures(arguments: Sequence[str]) -> dict[str, Path]:
    """Files by a name of their own: without the ending, or with it where two would be called the same.

    Args:
      arguments: files of any ending; folders, of which every image is taken, by name, but not those further below.

    Raises:
      UserError: nothing there, a folder without images, or two files of one name in different folders.
    """
    files: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            found = list_files(path, IMAGE_ENDINGS)
            if not found:
                raise UserError(f"{path}: no image in this folder; expected files ending in {', '.join(IMAGE_ENDINGS)}")
            files += found
        elif path.exists():
            files.append(path)
        else:
            raise UserError(f"{path}: no such image or folder")
    files = list(dict.fromkeys(files))
    stems = Counter(file.stem for file in files)
    named: dict[str, Path] = {}
    for file in files:
        name = file.stem if stems[file.stem] == 1 else file.name
        if name in named:
            raise UserError(f"{named[name]} and {file} have one name; do one folder after the other")
        named[name] = file
    return named


def read_picture(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels, upright by the orientation tag.

    Raises:
      UserError: not an image, truncated, or of more than 8 bits a channel.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return to_rgb(image)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a readable image ({error})") from error
