import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ruac_jax.data.shapes import ShapesSource
from ruac_jax.data.style_prompts import GENERIC
from ruac_jax.data.styled import styled_source

ARGUMENTS = ("--dataset=shapes/source", "--prompts=generic", "--model=stand-in", "--num_images=3", "--size=64")


def run(*arguments, cwd):
    command = [sys.executable, "-m", "ruac_jax.stylise", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_the_command_end_to_end(tmp_path):
    done = run(*ARGUMENTS, "--output=copies", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "6 copies of 3 images in 2 styles written to copies\n"
    assert "6/6" in done.stderr  # the progress bar
    manifest = json.loads((tmp_path / "copies/manifest.json").read_text())
    assert manifest["prompts"] == GENERIC
    assert (manifest["dataset"], manifest["model"]) == ("shapes/source, train, 64 px", "stand-in")
    assert manifest["images"] == {f"source/train/{i:06d}": [64, 64] for i in range(3)}
    originals = ShapesSource("source", size=64, num_images=3)
    source = styled_source(originals, tmp_path / "copies")
    assert len(source) == 9
    for index in range(3, 9):
        difference = np.abs(source[index]["image"].astype(int) - originals[index % 3]["image"])
        assert difference.mean() > 4
        np.testing.assert_array_equal(source[index]["masks"], originals[index % 3]["masks"])

    # Again: nothing to do. Elsewhere: the same pixels. Another seed: others.
    again = run(*ARGUMENTS, "--output=copies", cwd=tmp_path)
    assert again.stdout == "0 copies of 3 images in 2 styles written to copies\n"
    for folder, options in (("same", ()), ("other", ("--seed=1",))):
        assert run(*ARGUMENTS, *options, f"--output={folder}", cwd=tmp_path).returncode == 0
        first, second = (Image.open(tmp_path / f / "everyday/source/train/000001.png") for f in ("copies", folder))
        assert (np.array(first) == np.array(second)).all() == (folder == "same")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "error: --dataset is missing"),
        (("--dataset=shapes/source", "--prompts=generic", "--output=o"), "error: --model is missing"),
        ((*ARGUMENTS, "--output=o", "--dataset=shapes/sauce"), "error: no generated domain 'sauce'; did you mean"),
        ((*ARGUMENTS, "--output=o", "--dataset=mose"), "error: no dataset mose, split train"),
        ((*ARGUMENTS, "--output=o", "--prompts=targetted"), "error: --prompts targetted: expected generic, targeted"),
        ((*ARGUMENTS, "--output=o", "--model=sd15"), "error: --model sd15: expected the folder of a Stable Diffusion"),
        ((*ARGUMENTS, "--output=o", "--strength=1.5"), "error: --strength 1.5: expected more than 0 and at most 1"),
        ((*ARGUMENTS, "--output=o", "more"), "error: unexpected argument 'more'"),
    ],
)
def test_a_mistake_gets_one_message_and_leaves_nothing_behind(tmp_path, arguments, message):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(message)
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
