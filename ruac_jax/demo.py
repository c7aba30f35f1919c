"""A page in the browser to click on images: `python -m ruac_jax.demo --checkpoint MODEL` (docs/demo.md).

  python -m ruac_jax.demo --checkpoint MODEL --compare OTHER_MODEL     # two models side by side

Needs the `demo` extra. The page works without a network.
"""

import importlib.util
import os
import socket
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from ruac_jax.compare import short_names
from ruac_jax.demo_state import Settings, SharedModel
from ruac_jax.errors import UserError, run_main
from ruac_jax.hub import find_checkpoint, shipped_names
from ruac_jax.predictor import Predictor
from ruac_jax.prompt_flags import ObjectPrompt
from ruac_jax.weights import load_metadata

_DEFAULT = "nano"  # the checkpoint that comes with the package
_HOST = "127.0.0.1"
_HEADS = {
    "hypernetwork": "SAM2's own head; uncertainty is the entropy of its probability",
    "weibull": "Bayesian head; uncertainty from a distribution over masks",
    "evidential": "evidential head; uncertainty from the evidence it counts",
}


def main(argv: Sequence[str]) -> None:
    """Runs the command until it is interrupted."""
    options = flags.FLAGS
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page needs Gradio, which is not installed: pip install 'gradio>=6.31,<7'")
    if not options.checkpoint and _DEFAULT not in shipped_names():
        raise UserError("--checkpoint is missing: a folder or file of a converted or trained model")
    _check_port(options.port)
    models = load_models([options.checkpoint or _DEFAULT, *([options.compare] if options.compare else [])])
    print("compiling, so that the first click is answered at once ...")
    warm_up(models)
    start(models, port=options.port, share=options.share == "yes")


def _check_port(port: int) -> None:
    """Finds out before anything is computed."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise UserError(f"--port {port}: cannot be used ({error.strerror}); choose another") from error


def load_models(names: Sequence[str]) -> list[SharedModel]:
    """Models, found by `hub.find_checkpoint`, under titles that tell them apart.

    Raises:
      UserError: not a model, or one twice.
    """
    paths = [find_checkpoint(name) for name in names]
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("--compare: expected another model than that of --checkpoint")
    models = []
    for path, title in zip(paths, _titles(paths), strict=True):
        metadata = load_metadata(path)
        description = f"{metadata.variant} network; {_HEADS.get(metadata.head, metadata.head)}"
        models.append(SharedModel(title, description, Predictor.from_checkpoint(path)))
    return models


def _titles(paths: Sequence[Path]) -> list[str]:
    """Ends of the paths; RUN/model, as training names them, is called RUN, and files lose their ending."""
    runs = [path.parent if path.name == "model" else path for path in map(Path.resolve, paths)]
    runs = [path.with_suffix("") if path.is_file() else path for path in runs]
    return short_names(runs if len(set(runs)) == len(runs) else paths)


def warm_up(models: Sequence[SharedModel]) -> None:
    """Compiles what an image and its first click need."""
    for model in models:
        blank = np.zeros((model.image_size, model.image_size, 3), np.uint8)
        model.answer(blank, ObjectPrompt(points=((0.0, 0.0),), labels=(1,)), Settings())


def start(models: Sequence[SharedModel], *, port: int, share: bool = False) -> None:
    """Serves the page on this machine until it is interrupted.

    Args:
      models: one, or two to compare.
      port: of this machine.
      share: also through a public address of Gradio's, which needs a network.
    """
    from ruac_jax import demo_page  # Gradio is an extra

    # Gradio looks for its own page before it goes on: not by way of a proxy ...
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join([*filter(None, [os.environ.get(name)]), _HOST])
    demo_page.build(models).launch(
        server_name=_HOST,
        server_port=port,
        share=share,
        show_error=True,
        ssr_mode=False,
        _frontend=False,  # ... and it gives up where a busy machine takes three seconds to answer, but for this
        footer_links=[],
        theme=demo_page.theme(),
        css=demo_page.STYLE,
    )


if __name__ == "__main__":
    flags.DEFINE_string("checkpoint", "", "Folder, file or name of a model (default: the one shipped).")
    flags.DEFINE_string("compare", "", "A second model, shown below the first.")
    flags.DEFINE_integer("port", 7860, "Where the page is served on this machine.", lower_bound=1, upper_bound=65535)
    flags.DEFINE_enum("share", "no", ["no", "yes"], "Whether also through a public address of Gradio's.")
    run_main(main)
