import dataclasses

import numpy as np
import pytest

from ruac_jax.errors import UserError
from ruac_jax.evaluation.state import DatasetState
from ruac_jax.evaluation.store import load_state, save_state


@dataclasses.dataclass(frozen=True)
class Inner:
    rows: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 3)))
    total: int = 0


@dataclasses.dataclass(frozen=True)
class Outer:
    images: int = 0
    inner: Inner = dataclasses.field(default_factory=Inner)


def test_states_come_back_to_the_bit(tmp_path, rng):
    state = Outer(7, Inner(rng.standard_normal((4, 3)), 3**100))
    save_state(tmp_path / "a/b.npz", state, {"dataset": "x", "images": [1, 2]})
    again, identity = load_state(tmp_path / "a/b.npz", Outer())
    assert identity == {"dataset": "x", "images": [1, 2]}
    assert (again.images, again.inner.total) == (7, 3**100)
    np.testing.assert_array_equal(again.inner.rows, state.inner.rows)
    assert again.inner.rows.dtype == state.inner.rows.dtype
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.npz"]


def test_a_dataset_state_is_small_and_whole_on_disk(tmp_path):
    save_state(tmp_path / "s.npz", DatasetState(images=3, prompts=2**255 + 1), {})
    state, _ = load_state(tmp_path / "s.npz", DatasetState())
    assert state.prompts == 2**255 + 1
    assert state.compute() == DatasetState(images=3).compute()
    assert (tmp_path / "s.npz").stat().st_size < 100_000


def damaged(file):
    file.write_bytes(file.read_bytes()[:200])


def of_another_version(file):
    np.savez(file, identity=np.array("{}"))


@pytest.mark.parametrize("spoil", [damaged, of_another_version, lambda file: file.write_bytes(b"")])
def test_what_cannot_be_read_is_named(tmp_path, spoil):
    save_state(tmp_path / "s.npz", Outer(), {})
    spoil(tmp_path / "s.npz")
    with pytest.raises(UserError, match=r"s\.npz: not a readable state of an evaluation .* delete it"):
        load_state(tmp_path / "s.npz", Outer())
