"""The calls that a pipeline gets are checked on a recorder; where diffusers is installed, also on a random network."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ruac_jax.data.diffusion import GUIDANCE, STEPS, by_pipeline, check_checkpoint, diffusion_size, load_diffusion
from ruac_jax.errors import UserError


class Recorder:
    """Answers with the image it got, inverted."""

    def __init__(self):
        self.calls = []

    def __call__(self, **arguments):
        self.calls.append(arguments)
        return SimpleNamespace(images=[Image.fromarray(255 - np.array(arguments["image"]))])


@pytest.mark.parametrize(
    ("size", "expected"),
    [((128, 128), (512, 512)), ((480, 854), (512, 912)), ((1000, 333), (1536, 512)), ((512, 512), (512, 512))],
)
def test_the_pipeline_works_at_its_own_size(size, expected):
    assert diffusion_size(*size) == expected
    assert all(length % 8 == 0 for length in diffusion_size(*size))


def test_a_pipeline_is_called_as_documented(rng):
    pipeline = Recorder()
    ramp = np.linspace(0, 255, 96).astype(np.uint8)
    image = np.broadcast_to(ramp[None, :, None], (64, 96, 3)).copy()
    copy = by_pipeline(pipeline, lambda seed: ("generator", seed), 0.4)(image, "in rain", 2**62 + 1)
    (call,) = pipeline.calls
    assert call.keys() == {"prompt", "image", "strength", "guidance_scale", "num_inference_steps", "generator"}
    assert call["prompt"] == "in rain"
    assert call["generator"] == ("generator", 2**62 + 1)
    assert (call["strength"], call["guidance_scale"], call["num_inference_steps"]) == (0.4, GUIDANCE, STEPS)
    assert (call["image"].mode, call["image"].size) == ("RGB", (768, 512))
    assert copy.shape == image.shape
    assert copy.dtype == np.uint8
    np.testing.assert_allclose(copy[:, 4:-4], 255.0 - image[:, 4:-4], atol=3)  # content stays where it is


def index(folder, kind):
    folder.mkdir(exist_ok=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    return folder


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"--model .*none: expected the folder of a Stable Diffusion checkpoint"):
        check_checkpoint(tmp_path / "none")
    (tmp_path / "model_index.json").write_text("[]")
    with pytest.raises(UserError, match="expected the folder"):
        load_diffusion(tmp_path, 0.5)
    for kind in ("FluxPipeline", "StableDiffusionXLPipeline"):
        with pytest.raises(UserError, match=f"is a {kind}; expected"):
            check_checkpoint(index(tmp_path, kind))
    check_checkpoint(index(tmp_path, "StableDiffusionPipeline"))


def test_missing_packages_are_told_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)  # an import of it then fails
    with pytest.raises(UserError, match="pip install torch diffusers transformers accelerate"):
        load_diffusion(index(tmp_path, "StableDiffusionPipeline"), 0.5)


MAKE_CHECKPOINT = """
import json, sys, torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
torch.manual_seed(0)
folder = sys.argv[1]
tokens = [chr(c) for c in range(97, 123)] + [chr(c) + "</w>" for c in range(97, 123)]
tokens += ["<|startoftext|>", "<|endoftext|>"]
open(f"{folder}/vocab.json", "w").write(json.dumps({t: i for i, t in enumerate(tokens)}))
open(f"{folder}/merges.txt", "w").write("#version: 0.2\\n")
tokenizer = CLIPTokenizer(f"{folder}/vocab.json", f"{folder}/merges.txt", model_max_length=16)
text = CLIPTextModel(CLIPTextConfig(vocab_size=len(tokens), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
    num_attention_heads=2, max_position_embeddings=16, projection_dim=16, bos_token_id=52, eos_token_id=53))
unet = UNet2DConditionModel(sample_size=64, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    cross_attention_dim=16, attention_head_dim=4)
vae = AutoencoderKL(block_out_channels=(4, 4, 4, 4), norm_num_groups=2, latent_channels=4,
    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
StableDiffusionPipeline(vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet, scheduler=DDIMScheduler(),
    safety_checker=None, feature_extractor=None, requires_safety_checker=False).save_pretrained(f"{folder}/model")
"""
USE_CHECKPOINT = """
import pathlib, sys
import numpy as np
from ruac_jax.data.diffusion import load_diffusion
stylise = load_diffusion(pathlib.Path(sys.argv[1]) / "model", 0.1)
image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
one, again, other = (stylise(image, "rain", seed) for seed in (1, 1, 2))
assert one.shape == image.shape and one.dtype == np.uint8
assert (one == again).all() and (one != other).any()
print("done")
"""


@pytest.mark.slow
def test_a_real_pipeline_of_random_weights(tmp_path):
    """In processes of its own: these libraries warn, and warnings are errors here."""
    for package in ("torch", "diffusers", "transformers"):
        pytest.importorskip(package)
    for script in (MAKE_CHECKPOINT, USE_CHECKPOINT):
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=400, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("done")
