"""PyTorch's side of the encoder benchmark: sam2's `forward_image`, float32, eager."""

import os

import numpy as np
import torch
from sam2.build_sam import build_sam2

from ruac_jax.benchmarks.timing import report, settings_from_command_line

CONFIGS = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}


def build(variant: str, image_size: int = 1024) -> torch.nn.Module:
    """SAM2.1 of one size with random weights, for square images of `image_size`."""
    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(0)
    config = f"configs/sam2.1/sam2.1_hiera_{CONFIGS[variant]}.yaml"
    return build_sam2(config, ckpt_path=None, device="cpu", hydra_overrides_extra=[f"++model.image_size={image_size}"])


def main() -> None:
    """Times the eager encoder."""
    settings = settings_from_command_line()
    model = build(settings["variant"])
    shape = (settings["batch"], 3, settings["size"], settings["size"])
    image = torch.from_numpy(np.random.default_rng(0).normal(size=shape).astype(np.float32))

    @torch.inference_mode()
    def encode() -> None:
        model.forward_image(image)

    report(encode, settings["repeats"])


if __name__ == "__main__":
    main()
