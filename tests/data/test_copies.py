import dataclasses

import numpy as np
import pytest
from PIL import Image

from ruac_jax.data.copies import copy_seed, make_copies
from ruac_jax.data.record import Record
from ruac_jax.data.styled import Manifest, read_manifest, styled_source
from ruac_jax.errors import UserError

MANIFEST = Manifest("stills, train", "test", {"ink": "an ink drawing", "night": "at night"}, 0.5, 3)


class Stills:
    def __init__(self, length=3, name="v/{}"):
        self.length, self.name = length, name

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        image = np.full((6, 8, 3), 10 * index, np.uint8)
        return Record(image=image, masks=np.ones((1, 6, 8), bool), image_id=self.name.format(index))


class Painter:
    """Remembers its calls; a copy is brighter by the prompt's length. Fails after `limit` copies."""

    def __init__(self, limit=None):
        self.calls, self.limit = [], limit

    def __call__(self, image, prompt, seed):
        if len(self.calls) == self.limit:
            raise KeyboardInterrupt
        self.calls.append((int(image[0, 0, 0]), prompt, seed))
        return image + np.uint8(len(prompt))


def files(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_every_image_in_every_style(tmp_path):
    painter, folder = Painter(), tmp_path / "new/copies"
    assert make_copies(Stills(), 3, painter, MANIFEST, folder, ".png") == 6
    assert files(folder) == ["ink/v/0.png", "ink/v/1.png", "ink/v/2.png", "manifest.json"] + [
        f"night/v/{i}.png" for i in range(3)
    ]
    assert np.array(Image.open(folder / "night/v/2.png"))[0, 0, 0] == 20 + len("at night")
    assert painter.calls[3] == (10, "at night", copy_seed(3, "at night", "v/1"))
    assert len({call[2] for call in painter.calls}) == 6
    assert read_manifest(folder) == dataclasses.replace(MANIFEST, images={f"v/{i}": (6, 8) for i in range(3)})
    assert len(styled_source(Stills(), folder)) == 9


def test_seeds_are_pinned_and_fit_pytorch():
    assert copy_seed(0, "rain", "a/1") == copy_seed(0, "rain", "a/1")
    seeds = {copy_seed(s, p, i) for s in (0, 1) for p in ("rain", "snow") for i in ("a/1", "a/2")}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_stopped_run_is_continued_to_the_same_files(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    make_copies(Stills(), 3, Painter(), MANIFEST, whole, ".png")
    with pytest.raises(KeyboardInterrupt):
        make_copies(Stills(), 3, Painter(limit=4), MANIFEST, parts, ".png")
    with pytest.raises(UserError, match="copies of 0 images"):  # nobody takes it for complete
        styled_source(Stills(), parts)
    painter = Painter()
    assert make_copies(Stills(), 3, painter, MANIFEST, parts, ".png") == len(painter.calls) == 2
    assert files(parts) == files(whole)
    for name in files(whole):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()
    assert make_copies(Stills(), 3, Painter(limit=0), MANIFEST, parts, ".png") == 0


def test_more_images_join_and_fewer_take_none_away(tmp_path):
    assert make_copies(Stills(), 2, Painter(), MANIFEST, tmp_path, ".png") == 4
    assert make_copies(Stills(), 3, Painter(), MANIFEST, tmp_path, ".png") == 2
    assert make_copies(Stills(), 1, Painter(), MANIFEST, tmp_path, ".png") == 0
    assert list(read_manifest(tmp_path).images) == ["v/0", "v/1", "v/2"]


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    def fail(self, file, *arguments, **options):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        make_copies(Stills(), 1, Painter(), MANIFEST, tmp_path, ".png")
    monkeypatch.undo()
    assert make_copies(Stills(), 1, Painter(), MANIFEST, tmp_path, ".png") == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "seed was 3, is 4"),
        ({"strength": 0.25}, "strength was 0.5, is 0.25"),
        ({"model": "other"}, "model was 'test', is 'other'"),
        ({"dataset": "stills, val"}, "dataset was 'stills, train', is 'stills, val'"),
        ({"prompts": {"ink": "pen"}}, "prompts was"),
    ],
)
def test_copies_of_other_settings_do_not_mix(tmp_path, change, message):
    make_copies(Stills(), 1, Painter(), MANIFEST, tmp_path, ".png")
    with pytest.raises(UserError, match="copies of other settings, choose another --output") as caught:
        make_copies(Stills(), 1, Painter(limit=0), dataclasses.replace(MANIFEST, **change), tmp_path, ".png")
    assert message in str(caught.value)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="expected a new or empty folder"):
        make_copies(Stills(), 1, Painter(), MANIFEST, tmp_path, ".png")
    with pytest.raises(UserError, match="expected a new or empty folder"):
        make_copies(Stills(), 1, Painter(), MANIFEST, tmp_path / "notes.txt", ".png")
    assert files(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize("name", ["../{}", "/tmp/{}", "a/../../{}"])
def test_no_copy_lands_outside(tmp_path, name):
    with pytest.raises(UserError, match="cannot be the name of a copy"):
        make_copies(Stills(name=name), 1, Painter(), MANIFEST, tmp_path / "copies", ".png")
    assert files(tmp_path) == ["copies/manifest.json"]


def test_jpegs_are_close(tmp_path):
    make_copies(Stills(), 1, Painter(), MANIFEST, tmp_path, ".jpg")
    with Image.open(tmp_path / "ink/v/0.jpg") as image:
        assert image.format == "JPEG"
        assert np.abs(np.array(image).astype(int) - len("an ink drawing")).max() <= 1
