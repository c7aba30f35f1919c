"""The page with two fresh networks: `python tests/demo_server.py PORT FILE`; writes what the first is asked to a file.

A process of its own, since Gradio leaves sockets and event loops behind, which the suite's strict mode would report.
"""

import json
import sys
from pathlib import Path

import numpy as np
from flax import nnx

from ruac_jax import demo
from ruac_jax.demo_state import SharedModel
from ruac_jax.predictor import Predictor
from ruac_jax.weights import create_model


def fresh_predictor(seed, kind=Predictor):
    """A nano network with random weights."""
    return kind(create_model("nano", "weibull", rngs=nnx.Rngs(seed)), image_size=64)


class Recorder(Predictor):
    """A predictor that writes down what it is asked, one line of JSON each."""

    file: Path

    def predict(self, *args, **kwargs):
        """Writes, then answers as any predictor."""
        assert not args
        line = {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in kwargs.items()
            if name != "key"
        }
        with self.file.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return super().predict(**kwargs)


def main():
    """Serves until it is killed."""
    recorder = fresh_predictor(0, Recorder)
    recorder.file = Path(sys.argv[2])
    models = [SharedModel("first", "", recorder), SharedModel("second", "", fresh_predictor(1))]
    demo.start(models, port=int(sys.argv[1]))


if __name__ == "__main__":
    main()
