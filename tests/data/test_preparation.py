import fcntl

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ruac_jax.data.builders import mose
from ruac_jax.data.catalog import DATASETS
from ruac_jax.data.dataset import BadFileError, Counts, Dataset, Listing, Sample
from ruac_jax.data.masks import RunLengthMasks
from ruac_jax.data.preparation import prepare
from ruac_jax.data.prepared import dataset_folder, open_prepared
from ruac_jax.errors import UserError
from ruac_jax.prompts import fixed_clicks

from .video_tree import write_image, write_mask, write_mose


def prepare_mose(source, data_dir, split="train", **options):
    return prepare(mose.DATASET, source, data_dir, split=split, **options)


def load_source(data_dir, split):
    return open_prepared(data_dir, "mose", split)


def spoil(source):
    """Three bad files of different kinds; returns their paths."""
    truncated = source / "train/JPEGImages/aa11/00001.jpg"
    truncated.write_bytes(truncated.read_bytes()[:400])
    colour = source / "train/Annotations/bb22/00000.png"
    write_image(colour, 0)
    orphan = source / "train/Annotations/aa11/00009.png"
    write_mask(orphan, (1,))
    return truncated, colour, orphan


def hidden(folder):
    return [path.name for path in folder.glob(".*")]


def test_bad_files_are_all_named_and_nothing_is_written(tmp_path):
    write_mose(tmp_path / "mose/train")
    bad = spoil(tmp_path / "mose")
    with pytest.raises(UserError, match=r"3 files cannot be used, nothing was written") as error:
        prepare_mose(tmp_path / "mose", tmp_path / "data")
    assert all(str(path) in str(error.value) for path in bad)
    assert not list((tmp_path / "data").iterdir())


def test_bad_files_are_left_out_on_demand(tmp_path):
    write_mose(tmp_path / "mose/train")
    bad = spoil(tmp_path / "mose")
    result = prepare_mose(tmp_path / "mose", tmp_path / "data", skip_bad=True)
    assert result.images == 4
    assert len(result.skipped) == 3
    assert all(any(str(path) in line for line in result.skipped) for path in bad)
    source = load_source(tmp_path / "data", "train")
    assert [source[i]["image_id"] for i in range(len(source))] == ["aa11/00000", "bb22/00001"]


def test_all_bad_is_an_error_even_then(tmp_path):
    write_mose(tmp_path / "mose/train", {"one": [(1,)]})
    write_image(tmp_path / "mose/train/Annotations/one/00000.png", 0)
    with pytest.raises(UserError, match=r"no image of .* can be used"):
        prepare_mose(tmp_path / "mose", tmp_path / "data", skip_bad=True)


def test_what_is_there_is_kept_unless_overwritten(tmp_path):
    write_mose(tmp_path / "mose/train")
    first = prepare_mose(tmp_path / "mose", tmp_path / "data")
    again = prepare_mose(tmp_path / "mose", tmp_path / "data")
    assert (first.images, again.images) == (6, 0)
    assert first.folder == again.folder == dataset_folder(tmp_path / "data", "mose", "train")
    write_mose(tmp_path / "other/train", {"zz": [(1,)]})
    with pytest.raises(UserError, match="holds a dataset of other files; --overwrite replaces it"):
        prepare_mose(tmp_path / "other", tmp_path / "data")
    assert load_source(tmp_path / "data", "train").names == ["aa11", "bb22"]
    assert prepare_mose(tmp_path / "other", tmp_path / "data", overwrite=True).images == 1
    assert load_source(tmp_path / "data", "train").names == ["zz"]
    assert hidden(tmp_path / "data") == []


def test_splits_stand_side_by_side(tmp_path):
    write_mose(tmp_path / "mose/train")
    clips = tmp_path / "clips.txt"
    clips.write_text("bb22\n")
    prepare_mose(tmp_path / "mose", tmp_path / "data")
    prepare_mose(tmp_path / "mose/train", tmp_path / "data", split="sample", clips=clips)
    assert load_source(tmp_path / "data", "train").names == ["aa11", "bb22"]
    assert load_source(tmp_path / "data", "sample").names == ["bb22"]


def test_a_failure_keeps_the_old_dataset_and_leaves_no_debris(tmp_path, monkeypatch):
    write_mose(tmp_path / "mose/train")
    prepare_mose(tmp_path / "mose", tmp_path / "data")

    def full(self, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tfds.core.GeneratorBasedBuilder, "download_and_prepare", full)
    with pytest.raises(UserError, match=r"cannot write to .*No space left on device"):
        prepare_mose(tmp_path / "mose", tmp_path / "data", overwrite=True)
    assert len(load_source(tmp_path / "data", "train")) == 4
    assert hidden(tmp_path / "data") == []


def test_leftovers_of_a_killed_run_do_no_harm(tmp_path):
    write_mose(tmp_path / "mose/train")
    debris = tmp_path / "data/.mose_train.incomplete/mose/train/2.0.0"
    debris.mkdir(parents=True)
    (debris / "index.json").write_text("{half")
    (tmp_path / "data/.mose_train.lock").touch()
    assert prepare_mose(tmp_path / "mose", tmp_path / "data").images == 6
    assert hidden(tmp_path / "data") == []


def test_two_runs_at_once_are_refused(tmp_path):
    write_mose(tmp_path / "mose/train")
    (tmp_path / "data").mkdir()
    with (tmp_path / "data/.mose_train.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another run is preparing mose_train"):
            prepare_mose(tmp_path / "mose", tmp_path / "data")


def test_unknown_clips_are_named(tmp_path):
    write_mose(tmp_path / "mose/train")
    clips = tmp_path / "clips.txt"
    clips.write_text("nowhere\nbb22\nnope\n")
    with pytest.raises(UserError, match=r"2 clips are not in .*: nope, nowhere"):
        prepare_mose(tmp_path / "mose", tmp_path / "data", clips=clips)


def test_first_frames_only_on_demand(tmp_path):
    write_mose(tmp_path / "mose/train")
    assert prepare_mose(tmp_path / "mose", tmp_path / "data", all_frames=False).images == 3
    source = load_source(tmp_path / "data", "train")
    assert [source[i]["image_id"] for i in range(len(source))] == ["aa11/00000", "bb22/00000"]


def test_clicks_are_stored_for_judged_frames_and_are_those_of_the_protocol(tmp_path):
    write_mose(tmp_path / "mose/train")
    prepare_mose(tmp_path / "mose", tmp_path / "data")
    source = load_source(tmp_path / "data", "train")
    records = [source[i] for i in range(len(source))]
    assert ["points" in record for record in records] == [True, False, True, False]  # the first frame of each clip
    for record in (records[0], records[2]):
        expected = [fixed_clicks(mask)[0] for mask in record["masks"][:]]
        np.testing.assert_array_equal(record["points"], expected)


def plain(samples, problems=()):
    """A dataset of given samples."""
    return Dataset(
        name="plain",
        title="plain",
        group="objects",
        splits={"all": Counts()},
        evaluation_split="all",
        license="",
        download="",
        layout="",
        list_samples=lambda source, split: Listing(list(samples), list(problems)),
    )


def rows(count, size):
    """Objects of one image row each, all overlapping in the first column."""
    masks = np.zeros((count, *size), bool)
    masks[np.arange(count), np.arange(count) % size[0]] = True
    masks[:, :, 0] = True
    return RunLengthMasks.encode(size, masks)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "CMYK"])
@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "bmp"])
def test_every_kind_of_picture_reads_as_rgb(tmp_path, mode, ending):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)).convert(mode)
    file = tmp_path / f"a.{ending}"
    try:
        picture.save(file)
    except (OSError, ValueError):
        pytest.skip(f"no {ending} of mode {mode}")
    prepare(plain([Sample("a", file, lambda size: rows(2, size), ())]), tmp_path, tmp_path / "data", split="all")
    record = open_prepared(tmp_path / "data", "plain", "all")[0]
    np.testing.assert_array_equal(record["image"], np.asarray(Image.open(file).convert("RGB")))


def test_sixteen_bit_pictures_are_refused_not_squeezed(tmp_path):
    Image.fromarray(np.full((4, 5), 40_000, np.uint16)).save(tmp_path / "a.png")
    dataset = plain([Sample("a", tmp_path / "a.png", lambda size: rows(1, size), ())])
    with pytest.raises(UserError, match=r"a.png: I;16 pixels, expected 8 bits a channel"):
        prepare(dataset, tmp_path, tmp_path / "data", split="all")


def test_many_overlapping_objects_come_back_whole(tmp_path):
    write_image(tmp_path / "a.png", 0)
    prepare(plain([Sample("a", tmp_path / "a.png", lambda size: rows(400, size), ())]), tmp_path, tmp_path, split="all")
    record = open_prepared(tmp_path, "plain", "all")[0]
    np.testing.assert_array_equal(record["masks"][:], rows(400, (24, 32))[:])
    assert record["points"].shape == (400, 3, 2)


def test_images_without_objects_are_stored_but_not_judged(tmp_path):
    for name in "ab":
        write_image(tmp_path / f"{name}.png", 0)
    counts = {"a": 0, "b": 2}
    samples = [Sample(n, tmp_path / f"{n}.png", lambda size, c=c: rows(c, size), ()) for n, c in counts.items()]
    result = prepare(plain(samples), tmp_path, tmp_path / "data", split="all")
    assert (result.images, result.objects) == (2, 2)
    source = open_prepared(tmp_path / "data", "plain", "all")
    assert [source[i]["image_id"] for i in range(len(source))] == ["b"]


def test_an_empty_listing_is_an_error(tmp_path):
    with pytest.raises(UserError, match="has no annotated image of plain, split all"):
        prepare(plain([]), tmp_path, tmp_path / "data", split="all")


def test_a_long_list_of_problems_is_cut(tmp_path):
    write_image(tmp_path / "a.png", 0)

    def broken(size):
        raise BadFileError("one: bad")

    samples = [Sample(str(i), tmp_path / "a.png", broken, ()) for i in range(120)]
    with pytest.raises(UserError, match=r"and 71 more$") as error:
        prepare(plain(samples, ["missing: no image"]), tmp_path, tmp_path / "data", split="all")
    assert len(str(error.value).splitlines()) == 52


SPLITS = sorted({split for dataset in DATASETS.values() for split in dataset.splits})


@pytest.mark.parametrize("split", SPLITS)
def test_every_split_name_can_be_stored(tmp_path, split):
    write_image(tmp_path / "a.png", 0)
    samples = [Sample("a", tmp_path / "a.png", lambda size: rows(1, size), ())]
    prepare(plain(samples), tmp_path, tmp_path / "data", split=split)
    assert len(open_prepared(tmp_path / "data", "plain", split)) == 1
