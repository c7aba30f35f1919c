import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ruac_jax.data.catalog import DATASETS
from ruac_jax.data.prepared import open_prepared

from .data.video_tree import frame_labels, write_image, write_mose
from .real_data import real_data


def run(*arguments):
    command = [sys.executable, "-m", "ruac_jax.prepare_data", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_end_to_end(tmp_path):
    write_mose(tmp_path / "mose/train")
    arguments = ("mose", "--source", tmp_path / "mose", "--data_dir", tmp_path / "data")
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"6 images with 6 objects written to {tmp_path}/data/mose/train/2.0.0\n"
    assert "6/6" in done.stderr  # the progress bar
    again = run(*arguments)
    assert again.returncode == 0
    assert "is there already, made of the same files; --overwrite builds it anew" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "error: which dataset?; known are mose, trashcan, "),
        (("mosse",), "error: no dataset 'mosse', did you mean 'mose'?; known are mose, trashcan, "),
        (("mose",), "error: --source DIR is needed"),
        (("mose", "--source", "nowhere"), "error: no folder nowhere"),
        (("mose", "extra"), "error: unexpected argument 'extra'"),
        (("custom", "--images", "x"), "error: custom needs --name"),
        (("custom", "--images=x", "--annotations=y", "--name=mose"), "error: --name 'mose' is a published dataset's"),
        (("custom", "--images=x", "--annotations=y", "--name=My set"), "error: --name 'My set': lower case, digits"),
        (
            ("custom", "--images=x", "--annotations=y", "--name=mine"),
            "error: --annotations y: expected a COCO JSON file",
        ),
    ],
)
def test_mistakes_end_in_one_message_and_status_1(arguments, message):
    done = run(*arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(message)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "split", "sample", "images", "objects"),
    [
        ("mose", "val", "davis2016_val", 88, 88),
        ("mose", "val", "vos_demo_palette/xmem2_pumavos", 25, 28),
        ("trashcan", "all", "trashcan", 70, 175),
        ("bbbc038", "train", "bbbc038_stage1", 16, 715),
        ("ppdls", "all", "ppdls_cvppp_a1", 6, 95),
        ("cityscapes", "train_things", "cityscapes_pix2pixhd", 1, 13),
        ("ade20k", "train", "ade20k_official_sample", 1, 70),
    ],
)
def test_published_files_by_one_command(tmp_path, name, split, sample, images, objects):
    done = run(name, "--source", real_data(sample), "--split", split, "--data_dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{images} images with {objects} objects written to ")
    source = open_prepared(tmp_path, name, split)
    assert sum(len(source[i]["masks"]) for i in range(len(source))) == objects


def test_the_list_describes_every_dataset():
    done = run("--list")
    assert done.returncode == 0, done.stderr
    blocks = done.stdout.strip().split("\n\n")
    assert [block.split(":")[0] for block in blocks] == list(DATASETS)
    assert len(DATASETS) == 24
    for block in blocks:
        assert all(f"\n  {word} " in block for word in ("group", "splits", "licence", "from", "expects"))


def test_own_data_with_a_coco_file_or_label_maps(tmp_path):
    write_image(tmp_path / "images/a.png", 0)
    corners = [[2, 4, 5, 4, 5, 20, 2, 20], [7, 4, 10, 4, 10, 20, 7, 20]]
    index = {
        "images": [{"id": 1, "file_name": "a.png", "height": 24, "width": 32}],
        "annotations": [{"id": i, "image_id": 1, "segmentation": [ring]} for i, ring in enumerate(corners)],
    }
    (tmp_path / "coco.json").write_text(json.dumps(index))
    (tmp_path / "labels").mkdir()
    Image.fromarray(frame_labels((3, 9))).save(tmp_path / "labels/a.png")
    for name, annotations in (("by_coco", "coco.json"), ("by_labels", "labels")):
        done = run(
            *("custom", "--name", name, "--images", tmp_path / "images"),
            *("--annotations", tmp_path / annotations, "--data_dir", tmp_path / "data"),
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("1 images with 2 objects written to ")
        record = open_prepared(tmp_path / "data", name, "all")[0]
        np.testing.assert_array_equal(record["masks"][:], [frame_labels((3, 9)) == value for value in (3, 9)])


def test_counts_that_differ_from_the_published_are_told(tmp_path):
    write_mose(tmp_path / "mose/valid", {"one": [(1,)]})
    done = run("mose", "--source", tmp_path / "mose", "--split", "valid", "--data_dir", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert "published are other counts than these: 1 images of 311; a part of the download?" in done.stdout
