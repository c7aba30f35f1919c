import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from ruac_jax.data.builders.mose import dataset_folder, load_source
from ruac_jax.errors import UserError
from ruac_jax.prepare_data import prepare_mose

from .data.video_tree import write_image, write_mask, write_mose


def run(*arguments):
    command = [sys.executable, "-m", "ruac_jax.prepare_data", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


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
    with pytest.raises(UserError, match=r"3 of 7 frames cannot be used, nothing was written") as error:
        prepare_mose(tmp_path / "mose", tmp_path / "data")
    assert all(str(path) in str(error.value) for path in bad)
    assert not (tmp_path / "data").exists()


def test_bad_files_are_left_out_on_demand(tmp_path):
    write_mose(tmp_path / "mose/train")
    bad = spoil(tmp_path / "mose")
    result = prepare_mose(tmp_path / "mose", tmp_path / "data", skip_bad=True)
    assert result.frames == 4
    assert len(result.skipped) == 3
    assert all(any(str(path) in line for line in result.skipped) for path in bad)
    source = load_source(tmp_path / "data", "train")
    assert [source[i]["image_id"] for i in range(len(source))] == ["aa11/00000", "bb22/00001"]


def test_all_bad_is_an_error_even_then(tmp_path):
    write_mose(tmp_path / "mose/train", {"one": [(1,)]})
    write_image(tmp_path / "mose/train/Annotations/one/00000.png", 0)
    with pytest.raises(UserError, match=r"no frame of .* can be used"):
        prepare_mose(tmp_path / "mose", tmp_path / "data", skip_bad=True)


def test_what_is_there_is_kept_unless_overwritten(tmp_path):
    write_mose(tmp_path / "mose/train")
    first = prepare_mose(tmp_path / "mose", tmp_path / "data")
    again = prepare_mose(tmp_path / "mose", tmp_path / "data")
    assert (first.frames, again.frames) == (6, 0)
    assert first.folder == again.folder == dataset_folder(tmp_path / "data", "train")
    write_mose(tmp_path / "other/train", {"zz": [(1,)]})
    with pytest.raises(UserError, match="holds a dataset of other files; --overwrite replaces it"):
        prepare_mose(tmp_path / "other", tmp_path / "data")
    assert load_source(tmp_path / "data", "train").names == ["aa11", "bb22"]
    assert prepare_mose(tmp_path / "other", tmp_path / "data", overwrite=True).frames == 1
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
    debris = tmp_path / "data/.mose_train.incomplete/mose/train/1.0.0"
    debris.mkdir(parents=True)
    (debris / "index.json").write_text("{half")
    (tmp_path / "data/.mose_train.lock").touch()
    assert prepare_mose(tmp_path / "mose", tmp_path / "data").frames == 6
    assert hidden(tmp_path / "data") == []


def test_two_runs_at_once_are_refused(tmp_path):
    write_mose(tmp_path / "mose/train")
    (tmp_path / "data").mkdir()
    with (tmp_path / "data/.mose_train.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another run is preparing mose_train"):
            prepare_mose(tmp_path / "mose", tmp_path / "data")


def test_the_command_end_to_end(tmp_path):
    write_mose(tmp_path / "mose/train")
    arguments = ("mose", "--source", tmp_path / "mose", "--data_dir", tmp_path / "data")
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"6 frames written to {tmp_path}/data/mose/train/1.0.0\n"
    assert "6/6" in done.stderr  # the progress bar
    again = run(*arguments)
    assert again.returncode == 0
    assert "is there already, made of the same files; --overwrite builds it anew" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "error: which dataset?; known are\n  mose: "),
        (("mosse",), "error: no dataset 'mosse'; known are\n  mose: "),
        (("mose",), "error: --source DIR is needed"),
        (("mose", "--source", "nowhere"), "error: no folder nowhere"),
        (("mose", "extra"), "error: unexpected argument 'extra'"),
    ],
)
def test_mistakes_end_in_one_message_and_status_1(arguments, message):
    done = run(*arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(message)
    assert "Traceback" not in done.stderr


def test_the_list_of_datasets():
    done = run("--list")
    assert done.returncode == 0
    assert done.stdout.startswith("  mose: MOSE (mose.video)")


@pytest.mark.skipif("RUAC_REAL_DATA" not in os.environ, reason="RUAC_REAL_DATA does not point to real samples")
def test_real_davis(tmp_path):
    source = Path(os.environ["RUAC_REAL_DATA"]) / "davis2016_val"
    assert prepare_mose(source, tmp_path, split="validation").frames == 88
    frames = load_source(tmp_path, "validation")
    assert len(frames.names) == 14
    assert frames[0]["masks"].shape == (1, *frames[0]["image"].shape[:2])
