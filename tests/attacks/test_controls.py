import dataclasses

import jax
import numpy as np
import pytest

from ruac_jax.attacks import controls
from ruac_jax.attacks.attack import clean_scene
from ruac_jax.attacks.controls import ControlAttack
from tests.attacks.test_combined import STRONG, make, memory_encoder, run, scene

__all__ = ["memory_encoder"]  # a fixture
KEY = jax.random.key(1)


@pytest.fixture
def proposals(monkeypatch):
    """What is applied, in order."""
    seen = []
    original = controls.apply_proposal

    def watch(image, masks, proposal):
        seen.append(proposal)
        return original(image, masks, proposal)

    monkeypatch.setattr(controls, "apply_proposal", watch)
    return seen


def test_signs_keep_every_size(memory_encoder, proposals):
    attack, (embedding, image, masks, valid) = make(dataclasses.replace(STRONG, graph=False)), scene()
    clean = clean_scene(embedding, image, masks, valid, memory_encoder)
    ControlAttack(attack, "signs")(clean, KEY)
    learned = attack.propose(clean, None)
    (drawn,) = proposals
    mean, mean_learned = (np.asarray(p.style.delta)[..., :3] for p in (drawn, learned))
    np.testing.assert_allclose(np.abs(mean), np.abs(mean_learned), rtol=1e-6)
    assert (np.sign(mean) != np.sign(mean_learned)).any()
    lengths = [np.linalg.norm(p.flow, axis=-1) for p in (drawn, learned)]
    np.testing.assert_allclose(*lengths, rtol=1e-5, atol=1e-6)
    turned = np.asarray(drawn.flow)[0, 0], np.asarray(learned.flow)[0, 0]
    quarters = ((1, 0), (0, 1), (-1, 0), (0, -1))
    flow = turned[1]
    candidates = [
        np.stack([c * flow[..., 0] - s * flow[..., 1], s * flow[..., 0] + c * flow[..., 1]], -1) for c, s in quarters
    ]
    assert min(np.abs(turned[0] - c).max() for c in candidates) < 1e-5


def test_uniform_fills_the_budget(memory_encoder, proposals):
    attack, inputs = make(), scene()
    for seed in range(20):
        ControlAttack(attack, "uniform")(clean_scene(*inputs, memory_encoder), jax.random.key(seed))
    styled = np.asarray(proposals[0].style.slots.styled)
    shifts = np.concatenate([np.asarray(p.style.delta)[styled][:, :3].ravel() for p in proposals])
    limit = STRONG.style_epsilon
    assert np.abs(shifts).max() <= limit
    assert np.abs(shifts).mean() == pytest.approx(limit / 2, rel=0.1)  # 300 draws: 3.5 standard deviations
    assert shifts.mean() == pytest.approx(0, abs=0.12 * limit)
    flows = np.stack([p.flow for p in proposals])
    assert 0.5 < np.abs(flows).max() / (STRONG.flow_epsilon * 16) <= 2


def test_a_control_is_an_attack(memory_encoder):
    got = run(ControlAttack(make(), "signs"), memory_encoder, scene(), KEY)
    assert got.metrics.keys() == {"style_shift", "style_saturated", "flow_px", "flow_px_max"}
