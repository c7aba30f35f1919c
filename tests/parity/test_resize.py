"""Resizing against `torch.nn.functional.interpolate` and adaptive average pooling.

Largest difference 2e-6; 2e-5 where the ratio of sizes is no power of two, as torch rounds its coordinates to float32.
"""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ruac_jax.functional.resize import resize
from tests.parity.oracle import channels_first, channels_last

SIZES = [((7, 7), (32, 48)), ((32, 24), (64, 48)), ((20, 30), (7, 11)), ((16, 16), (64, 64)), ((40, 24), (24, 40))]


@pytest.mark.parametrize(("source", "target"), SIZES)
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("bilinear", {"align_corners": False}),
        ("bilinear", {"align_corners": False, "antialias": True}),
        ("bicubic", {"align_corners": False}),
        ("nearest", {}),
    ],
)
def test_interpolate(method, options, source, target, rng):
    x = rng.standard_normal((2, *source, 3)).astype(np.float32)
    expected = channels_last(F.interpolate(channels_first(x), size=target, mode=method, **options))
    ours = resize(jnp.asarray(x), target, method, options.get("antialias", False))
    exact = all(np.log2(t / s) % 1 == 0 for s, t in zip(source, target, strict=True))
    np.testing.assert_allclose(ours, expected, atol=2e-6 if exact else 2e-5)


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_area(source, target, rng):
    x = rng.standard_normal((2, *source, 3)).astype(np.float32)
    expected = channels_last(torch.nn.functional.adaptive_avg_pool2d(channels_first(x), target))
    np.testing.assert_allclose(resize(jnp.asarray(x), target, "area"), expected, atol=2e-6)
