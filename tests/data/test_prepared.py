import io
import pickle

import numpy as np
import pytest
from PIL import Image

from ruac_jax.data.builders import mose
from ruac_jax.data.pipeline import PipelineSettings, training_iterator
from ruac_jax.data.preparation import prepare
from ruac_jax.data.prepared import open_prepared, read_clip_list
from ruac_jax.data.record import ClipSource
from ruac_jax.errors import UserError

from .video_tree import CLIPS, frame_labels, write_mose


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("mose")
    write_mose(root / "source" / "train")
    result = prepare(mose.DATASET, root / "source", root / "data", split="train")
    assert (result.images, result.objects) == (6, 6)
    return root


def test_records_are_the_annotated_frames_with_objects(prepared):
    source = open_prepared(prepared / "data", "mose", "train")
    assert isinstance(source, ClipSource)
    assert source.names == ["aa11", "bb22"]  # cc33 has no object
    assert [list(clip) for clip in source.clips] == [[0, 1], [2, 3]]
    expected = [(clip, i, objects) for clip in ("aa11", "bb22") for i, objects in enumerate(CLIPS[clip]) if objects]
    assert len(source) == len(expected) == 4
    for index, (clip, number, objects) in enumerate(expected):
        record = source[index]
        assert record["image_id"] == f"{clip}/{number:05d}"
        file = prepared / f"source/train/JPEGImages/{clip}/{number:05d}.jpg"
        np.testing.assert_array_equal(record["image"], np.asarray(Image.open(io.BytesIO(file.read_bytes()))))
        np.testing.assert_array_equal(record["masks"][:], [frame_labels(objects) == value for value in objects])


def test_a_list_of_clips_limits_what_is_loaded(prepared, tmp_path):
    clips = tmp_path / "clips.txt"
    clips.write_text("bb22\n")
    source = open_prepared(prepared / "data", "mose", "train", clips)
    assert source.names == ["bb22"]
    assert [record["image_id"] for record in (source[0], source[1])] == ["bb22/00000", "bb22/00001"]
    assert len(source) == 2
    clips.write_text("bb22\nxx\nyy\n")
    with pytest.raises(UserError, match=r"2 clips are not in .*: xx, yy"):
        open_prepared(prepared / "data", "mose", "train", clips)


def test_a_missing_dataset_names_the_place_and_the_command(tmp_path):
    with pytest.raises(UserError) as error:
        open_prepared(tmp_path, "mose", "valid")
    assert str(tmp_path / "mose/valid/2.0.0") in str(error.value)
    assert f"python -m ruac_jax.prepare_data mose --source DIR --split valid --data_dir {tmp_path}" in str(error.value)


def test_the_source_travels_to_worker_processes(prepared):
    source = open_prepared(prepared / "data", "mose", "train")
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again[3]["masks"][:], source[3]["masks"][:])


def test_training_batches_come_from_all_clips(prepared):
    settings = PipelineSettings(image_size=32, batch_size=8, max_objects=2, seed=0, samples_per_clip=4)
    iterator = training_iterator(open_prepared(prepared / "data", "mose", "train"), settings)
    assert iterator.samples_per_epoch == 8
    batch = next(iterator)
    assert batch.image.shape == (8, 32, 32, 3)
    assert batch.valid.any(axis=1).all()
    iterator.close()


def test_a_list_of_clips_may_have_comments(tmp_path):
    file = tmp_path / "clips.txt"
    file.write_text("# SAM2's sample\naa11\n\n  bb22 \n")
    assert read_clip_list(file) == ["aa11", "bb22"]
    file.write_text("\n#\n")
    with pytest.raises(UserError, match="names no clip"):
        read_clip_list(file)
    with pytest.raises(UserError, match="cannot read the list of clips"):
        read_clip_list(tmp_path / "missing.txt")
