"""The embedded dataset: generated images of a source domain and of shifted target domains, with exact masks.

Nothing is downloaded or stored: image `index` of a domain follows from (seed, domain, split, index) alone. The
targets shift the appearance, the shape, or both; `DOMAINS` says what each shows.
"""

import difflib
import zlib

import numpy as np
from jaxtyping import UInt8

from ruac_jax.data.drawing.render import draw
from ruac_jax.data.drawing.scenes import DOMAINS, SOURCE, Kind
from ruac_jax.data.record import Record
from ruac_jax.errors import UserError

TARGETS: dict[str, Kind] = {name: domain.kind for name, domain in DOMAINS.items() if name != SOURCE}
HELD_OUT = tuple(name for name in TARGETS if DOMAINS[name].held_out)  # never looked at when settings were chosen
DEVELOPMENT = tuple(name for name in TARGETS if name not in HELD_OUT)
SPLITS = ("train", "validation")

_Drawn = tuple[UInt8[np.ndarray, "s s 3"], UInt8[np.ndarray, "s s"], int]
_MEMORY_BYTES = 400 * 2**20
_memory: dict[tuple[int, str, str, int, int], _Drawn] = {}  # of the whole process: runs of a study see the same images


class ShapesSource:
    """Random access to one domain; images are drawn on first use and then kept (up to 400 MB in a process)."""

    def __init__(self, domain: str, split: str = "train", *, size: int = 128, num_images: int = 2000, seed: int = 0):
        """Prepares a domain; nothing is drawn yet.

        Args:
          domain: a key of `DOMAINS`.
          split: "train" or "validation"; the splits share no image.
          size: side of the square images, px.
          num_images: length of the source; a longer source begins with the images of a shorter one.
          seed: another seed, other images.

        Raises:
          UserError: an unknown domain or split, with the valid names.
        """
        for value, known, what in ((domain, DOMAINS, "domain"), (split, SPLITS, "split")):
            if value not in known:
                nearest = difflib.get_close_matches(value, known, n=1, cutoff=0.0)[0]
                raise UserError(f"no generated {what} {value!r}; did you mean {nearest!r}? known: {', '.join(known)}")
        self.domain, self.split, self.size = domain, split, size
        self._num_images, self._seed = num_images, seed

    def __len__(self) -> int:
        return self._num_images

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < self._num_images:
            raise IndexError(f"image {index} of {self._num_images}")
        name = (self._seed, self.domain, self.split, self.size, index)
        drawn = _memory.get(name)
        if drawn is None:
            rng = np.random.default_rng([self._seed, zlib.crc32(self.domain.encode()), SPLITS.index(self.split), index])
            drawn = draw(DOMAINS[self.domain].scene(rng, self.size), rng)
            if len(_memory) < _MEMORY_BYTES // (4 * self.size**2):
                _memory[name] = drawn
        image, bits, count = drawn
        masks = (bits[None] >> np.arange(count, dtype=np.uint8)[:, None, None] & 1).astype(bool)
        return Record(image=image.copy(), masks=masks, image_id=f"{self.domain}/{self.split}/{index:06d}")
