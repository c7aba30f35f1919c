import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ruac_jax.functional.warp import warp


@pytest.mark.parametrize("seed", range(3))
def test_warp_equals_grid_sample_in_value_and_gradient(seed):
    rng = np.random.default_rng(seed)
    h, w = 11, 14
    image, cotangent = rng.normal(size=(2, 2, h, w, 3))
    flow = rng.normal(scale=3, size=(2, h, w, 2))

    tensor = torch.tensor(flow, requires_grad=True)
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    at = tensor + torch.stack([x, y], dim=-1)
    grid = (2 * at + 1) / torch.tensor([w, h]) - 1  # pixel centres, as align_corners=False counts them
    source = torch.tensor(image).permute(0, 3, 1, 2)
    want = torch.nn.functional.grid_sample(source, grid, padding_mode="border", align_corners=False)
    want = want.permute(0, 2, 3, 1)
    want.backward(torch.tensor(cotangent))

    got, pull_back = jax.vjp(lambda f: warp(jnp.asarray(image, jnp.float32), f), jnp.asarray(flow, jnp.float32))
    np.testing.assert_allclose(got, want.detach().numpy(), atol=1e-5)
    gradient = pull_back(jnp.asarray(cotangent, jnp.float32))[0]
    np.testing.assert_allclose(gradient, tensor.grad.numpy(), atol=1e-5)
