import importlib
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ruac_jax.functional.losses import segmentation_terms


@pytest.fixture
def recipe(monkeypatch):
    """SAM2's loss module; of its trainer, which needs packages of its own, the loss takes one constant."""
    trainer = types.ModuleType("training.trainer")
    trainer.CORE_LOSS_KEY = "core_loss"
    monkeypatch.setitem(sys.modules, "training.trainer", trainer)
    module = importlib.import_module("training.loss_fns")
    yield module
    monkeypatch.delitem(sys.modules, "training.loss_fns")


@pytest.mark.parametrize("t", [1, 3])
def test_terms_and_gradient_of_sam2s_recipe(recipe, rng, t):
    weights = {"loss_mask": 20, "loss_dice": 1, "loss_iou": 1, "loss_class": 1}
    logits = rng.normal(scale=5, size=(5, t, 24, 24)).astype(np.float32)
    target = rng.random((5, 24, 24)) < 0.4
    target[2] = False
    iou, score = rng.random((5, t)).astype(np.float32), rng.normal(size=5).astype(np.float32)
    loss = recipe.MultiStepMultiMasksAndIous(
        weights, supervise_all_iou=True, iou_use_l1_loss=True, pred_obj_scores=True
    )
    torch_logits = torch.from_numpy(logits).requires_grad_()
    theirs = loss(
        [
            {
                "multistep_pred_multimasks_high_res": [torch_logits],
                "multistep_pred_ious": [torch.from_numpy(iou)],
                "multistep_object_score_logits": [torch.from_numpy(score)[:, None]],
            }
        ],
        torch.from_numpy(target)[None],
    )
    ours = segmentation_terms(*map(jnp.asarray, (logits, target, iou, score)))
    # Theirs are divided by the number of objects, absent ones included.
    expected = [float(theirs[f"loss_{name}"].detach()) for name in ("mask", "dice", "iou", "class")]
    np.testing.assert_allclose([float(term.sum()) / 5 for term in ours], expected, rtol=2e-6)

    def total(logits):
        terms = segmentation_terms(logits, *map(jnp.asarray, (target, iou, score)))
        return (20 * terms.focal + terms.dice + terms.iou + terms.object).sum() / 5

    theirs["core_loss"].backward()
    np.testing.assert_allclose(jax.grad(total)(jnp.asarray(logits)), torch_logits.grad, rtol=1e-4, atol=1e-9)
