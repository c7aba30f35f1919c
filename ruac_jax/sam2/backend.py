"""Which kind of device the network is being traced for; layers choose their form by it."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Literal

import jax

Backend = Literal["cpu", "gpu", "tpu"]

_target: ContextVar[str | None] = ContextVar("target", default=None)


def target_backend() -> str:
    """The backend named by `traced_for`, else JAX's default: "cpu", "gpu" or "tpu"."""
    return _target.get() or jax.default_backend()


@contextlib.contextmanager
def traced_for(backend: Backend) -> Iterator[None]:
    """What is traced inside is meant for this backend, whatever the machine at hand has.

    JAX does not know: a function jitted outside and called here before or after keeps the form it was first traced in.
    """
    token = _target.set(backend)
    try:
        yield
    finally:
        _target.reset(token)
