import json
import pickle
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from ruac_jax.config import DataConfig
from ruac_jax.data.masks import RunLengthMasks
from ruac_jax.data.pipeline import FrameSampler, PipelineSettings, training_iterator
from ruac_jax.data.record import ClipSource, Record, Source
from ruac_jax.data.shapes import ShapesSource
from ruac_jax.data.sources import training_batches
from ruac_jax.data.styled import (
    MANIFEST,
    Manifest,
    StyledSource,
    find_copy,
    read_manifest,
    styled_source,
    write_manifest,
)
from ruac_jax.data.transforms import NO_AUGMENTATION
from ruac_jax.errors import UserError

PROMPTS = {"ink": "an ink drawing", "night": "at night"}
NAMES = ("a/1", "a/2", "b/1.x", "b/2")  # folders and dots in names


class Stills:
    """Image i is grey of value i; its mask is a square."""

    def __len__(self):
        return len(NAMES)

    def __getitem__(self, index):
        masks = np.zeros((1, 20, 24), bool)
        masks[0, 4:16, 4:16] = True
        masks = RunLengthMasks.encode((20, 24), masks)
        points = np.full((1, 3, 2), 9)
        return Record(image=np.full((20, 24, 3), index, np.uint8), masks=masks, image_id=NAMES[index], points=points)


class Clips(Stills):
    clips = ((0, 1), (3,))


def write_copies(folder, size=(24, 20), ending=".png"):
    """The copy of image i in style s is grey of value 100 (s + 1) + i."""
    for s, style in enumerate(PROMPTS):
        for i, name in enumerate(NAMES):
            file = folder / style / f"{name}{ending}"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size, (100 * (s + 1) + i,) * 3).save(file)
    images = {name: (20, 24) for name in NAMES}
    write_manifest(folder, Manifest("stills, train", "by hand", PROMPTS, 0.5, 0, images))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_copies(tmp_path / "copies")


def test_originals_then_their_copies_style_by_style(folder):
    source = styled_source(Stills(), folder)
    assert isinstance(source, Source)
    assert not isinstance(source, ClipSource)
    assert len(source) == 12
    values = [int(source[i]["image"][0, 0, 0]) for i in range(12)]
    assert values == [0, 1, 2, 3, 100, 101, 102, 103, 200, 201, 202, 203]
    ids = [source[i]["image_id"] for i in range(12)]
    assert len(set(ids)) == 12
    assert ids[:5] == [*NAMES, "a/1@ink"]
    original = Stills()[2]
    for index in (2, 6, 10):
        record = source[index]
        assert record["image"].shape == (20, 24, 3)
        assert record["masks"].counts == original["masks"].counts
        np.testing.assert_array_equal(record["points"], original["points"])
    for index in (-1, 12):
        with pytest.raises(IndexError):
            source[index]


def test_an_index_read_twice_and_by_another_process_is_the_same(folder):
    source = styled_source(Stills(), folder)
    for index in range(12):
        other = pickle.loads(pickle.dumps(source))[index]
        np.testing.assert_array_equal(source[index]["image"], other["image"])
        assert source[index]["image_id"] == other["image_id"]


def test_a_clip_gets_the_copies_of_its_frames(folder):
    source = styled_source(Clips(), folder)
    assert isinstance(source, ClipSource)
    assert source.clips == [[0, 1, 4, 5, 8, 9], [3, 7, 11]]
    sampler = FrameSampler(source, 4)
    assert len(sampler) == 8  # as without copies
    rng = np.random.default_rng(0)
    assert {sampler.draw(1, rng) for _ in range(60)} == {3, 7, 11}


def test_an_epoch_of_the_pipeline_visits_originals_and_copies(folder):
    settings = PipelineSettings(image_size=16, batch_size=6, max_objects=1, seed=0, augmentation=NO_AUGMENTATION)
    iterator = training_iterator(styled_source(Stills(), folder), settings)
    assert iterator.samples_per_epoch == 12
    seen = np.concatenate([next(iterator).image[:, 8, 8, 0] for _ in range(2)])
    assert Counter(seen.tolist()) == Counter([0, 1, 2, 3, 100, 101, 102, 103, 200, 201, 202, 203])


@pytest.mark.parametrize(("size", "ending"), [((48, 40), ".png"), ((30, 20), ".jpg")])
def test_copies_of_another_size_are_resized(tmp_path, size, ending):
    source = styled_source(Stills(), write_copies(tmp_path / "copies", size, ending))
    image = source[9]["image"]
    assert image.shape == (20, 24, 3)
    assert abs(image.astype(int) - 201).max() <= 1  # JPEG


def test_resizing_keeps_the_place(tmp_path, folder):
    pixels = np.zeros((40, 48, 3), np.uint8)
    pixels[:, 24:] = 200
    Image.fromarray(pixels).save(folder / "ink/a/1.png")
    image = styled_source(Stills(), folder)[4]["image"]
    # The edge stays between the same two columns.
    assert image[:, :11].max() < 20
    assert image[:, 13:].min() > 180


def test_missing_copies_are_counted_and_the_first_is_named(folder):
    (folder / "night/b/2.png").unlink()
    (folder / "ink/a/2.png").unlink()
    with pytest.raises(UserError, match=r"^2 of 8 stylised copies are missing from .*, the first is ink/a/2; run "):
        styled_source(Stills(), folder)


def test_an_unfinished_folder_says_so(folder):
    write_manifest(folder, Manifest("stills, train", "by hand", PROMPTS, 0.5, 0))
    with pytest.raises(UserError, match="copies of 0 images of stills, train, expected those of 4; run "):
        styled_source(Stills(), folder)


def test_copies_of_more_images_will_do(folder):
    class First(Stills):
        def __len__(self):
            return 3

    source = styled_source(First(), folder)
    assert len(source) == 9
    assert source[3]["image_id"] == "a/1@ink"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            {name.upper(): (20, 24) for name in NAMES},
            "are not of the training image a/1 of 24x20 px but of other images",
        ),
        ({name: (24, 20) for name in NAMES}, "of 24x20 px but of one of 20x24 px"),
    ],
)
def test_copies_of_other_images_are_refused(folder, images, message):
    for name in images:
        for style in PROMPTS:
            file = folder / style / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (24, 20)).save(file)
    write_manifest(folder, Manifest("stills, train", "by hand", PROMPTS, 0.5, 0, images))
    with pytest.raises(UserError, match=message):
        styled_source(Stills(), folder)


def test_a_stranger_between_the_ends_is_refused_when_read(folder):
    class Changed(Stills):
        def __getitem__(self, index):
            return super().__getitem__(index) | ({"image_id": "z"} if index == 1 else {})

    source = styled_source(Changed(), folder)
    with pytest.raises(UserError, match="not of the training image z"):
        source[5]


def test_a_broken_or_vanished_copy_is_named_when_read(folder):
    source = styled_source(Stills(), folder)
    (folder / "ink/a/1.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"ink/a/1\.png: not a readable image"):
        source[4]
    (folder / "ink/a/1.png").unlink()
    with pytest.raises(UserError, match="copy ink/a/1 is missing"):
        source[4]


def test_a_manifest_comes_back_as_it_was(tmp_path):
    for images in (None, {"ä/1": (3, 4)}):
        manifest = Manifest("mose, train", "/models/sd", {"x": 'say "ä"'}, 0.25, 7, images)
        write_manifest(tmp_path, manifest)
        assert read_manifest(tmp_path) == manifest
    assert [file.name for file in tmp_path.iterdir()] == [MANIFEST]


@pytest.mark.parametrize(
    "change",
    [{"prompts": {}}, {"prompts": ["x"]}, {"images": [1]}, {"images": {"a": 3}}, {"more": 1}, {"images": {"a": "xy"}}],
)
def test_a_manifest_that_cannot_be_used_is_refused(folder, change):
    found = json.loads((folder / MANIFEST).read_text()) | change
    (folder / MANIFEST).write_text(json.dumps(found))
    with pytest.raises(UserError, match="not a manifest of stylised copies"):
        read_manifest(folder)


def test_no_manifest_at_all(tmp_path):
    with pytest.raises(UserError, match=r"no stylised copies in .*: expected .*manifest\.json"):
        styled_source(Stills(), tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(UserError, match="not a manifest"):
        styled_source(Stills(), tmp_path)


def test_training_batches_take_the_copies_in(tmp_path):
    originals, folder = ShapesSource("source", size=32, num_images=4), tmp_path / "copies"
    for index in range(4):
        file = folder / "red" / f"{originals[index]['image_id']}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (250, 0, 0)).save(file)
    images = {originals[index]["image_id"]: (32, 32) for index in range(4)}
    write_manifest(folder, Manifest("shapes/source, train", "by hand", {"red": "red"}, 0.5, 0, images))
    options = {"dataset": "shapes/source", "batch_size": 8, "augment": False, "stylised": str(folder)}
    config = DataConfig(num_images=4, max_objects=8, **options)
    iterator = training_batches(config, 32, 0)
    assert iterator.samples_per_epoch == 8
    batch = next(iterator)
    red = (batch.image == (250, 0, 0)).all(axis=(1, 2, 3))
    assert red.sum() == 4

    # Each original and its copy have the same objects.
    def outline(index):
        return tuple(sorted(mask.tobytes() for mask in batch.masks[index][batch.valid[index]]))

    outlines = [[outline(i) for i in np.flatnonzero(which)] for which in (red, ~red)]
    assert Counter(outlines[0]) == Counter(outlines[1])
    assert len(set(outlines[0])) == 4
    iterator.close()
    with pytest.raises(UserError, match="expected those of 5"):
        training_batches(DataConfig(num_images=5, **options), 32, 0)
    with pytest.raises(UserError, match="of 64x64 px but of one of 32x32 px"):
        training_batches(config, 64, 0)


def test_a_copy_is_found_by_its_whole_name_and_any_ending(folder):
    assert find_copy(folder, "ink", "b/1.x") == folder / "ink/b/1.x.png"
    (folder / "ink/b/1.x.png").rename(folder / "ink/b/1.x.jpeg")
    assert find_copy(folder, "ink", "b/1.x") == folder / "ink/b/1.x.jpeg"
    assert find_copy(folder, "ink", "b/1") is None
    assert isinstance(styled_source(Stills(), folder), StyledSource)
