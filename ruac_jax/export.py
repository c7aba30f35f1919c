"""Exports a model: `python -m ruac_jax.export --checkpoint MODEL --output DIR`.

Writes the encoder and the decoder as serialised StableHLO functions (jax.export) that hold their parameters, and
`manifest.json`. Whoever loads them needs jax, numpy and flatbuffers alone (docs/export.md). For a machine with other
devices name their platforms: `--platforms cpu,cuda`.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from absl import flags
from flax import nnx
from jax import export
from jaxtyping import Array, Bool, Float, Int

from ruac_jax.errors import UserError, run_main
from ruac_jax.folders import check_output, new_folder
from ruac_jax.hub import find_checkpoint
from ruac_jax.inference import encode
from ruac_jax.model import SAM2, ImageFeatures, Prompts
from ruac_jax.sam2.backend import traced_for
from ruac_jax.sam2.variants import variant
from ruac_jax.weights import ModelMetadata, load_metadata, load_model

FORMAT_VERSION = 1
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
MANIFEST = "manifest.json"
MOST_POINTS = 512  # of an object

CONVENTIONS = {
    "image": "RGB in [0, 255], stretched to the square, channels last; normalisation is part of the encoder",
    "points": "(x, y) pixels of the square image; an integer is the centre of a pixel",
    "labels": "1 object, 0 background, 2 and 3 top-left and bottom-right corner of a box, -2 an absent slot, "
    "-3 the same where an object has a mask and no point at all",
    "mask": "low-resolution logits of an earlier decoding, clipped to [-32, 32]; read where has_mask is true",
    "logits": "means, at a quarter of the image's size, of 4 masks: 0 for one unambiguous mask, 1 to 3 hypotheses",
    "uncertainty": "in [0, 1], Bernoulli entropy over ln 2 of the foreground probability, of each of the 4 masks",
    "iou": "predicted IoU of each of the 4 masks, in [0, 1]",
    "object_score": "logit: not positive where the network sees no object; logits are given all the same",
    "dimensions": f"n objects, at least 1; p points of each, 1 to {MOST_POINTS}",
}

Signature = Mapping[str, Any]


class Functions(NamedTuple):
    """The two halves of a network, ready to be serialised.

    Attributes:
      encoder: image [1, s, s, 3] to a dictionary of features.
      decoder: features, points, labels, mask, has_mask to a dictionary of `DECODED`.
    """

    encoder: export.Exported
    decoder: export.Exported


def export_functions(
    model: SAM2,
    image_size: int,
    *,
    platforms: Sequence[str] = ("cpu",),
    variance: Literal["product", "full"] = "product",
) -> Functions:
    """Lowers a network for platforms that need not be at hand; its parameters become constants.

    Args:
      model: the network, float32.
      image_size: side of its square images, px, a multiple of 32.
      platforms: of `PLATFORMS`.
      variance: which logit variance the uncertainty uses.
    """
    graph, state = nnx.split(model)

    def encoder(image: Float[Array, "1 s s 3"]) -> dict[str, Array]:
        return encode(nnx.merge(graph, state), image)._asdict()

    def decoder(
        features: dict[str, Array],
        points: Float[Array, "n p 2"],
        labels: Int[Array, "n p"],
        mask: Float[Array, "n h w"],
        has_mask: Bool[Array, "n"],
    ) -> dict[str, Array]:
        model = nnx.merge(graph, state)
        rows = {name: jnp.broadcast_to(x, (points.shape[0], *x.shape[1:])) for name, x in features.items()}
        decoded = model.decode(ImageFeatures(**rows), Prompts(points, labels, mask, has_mask))
        distribution = model.head(decoded)
        return {
            "logits": distribution.mean_logits(),
            "iou": decoded.iou,
            "object_score": decoded.object_score,
            "uncertainty": distribution.uncertainty(mode=variance),
        }

    n, p = export.symbolic_shape("n, p", constraints=[f"p <= {MOST_POINTS}"])
    side, shape = image_size // 4, jax.ShapeDtypeStruct
    image = shape((1, image_size, image_size, 3), jnp.float32)
    prompts = (
        shape((n, p, 2), jnp.float32),
        shape((n, p), jnp.int32),
        shape((n, side, side), jnp.float32),
        shape((n,), jnp.bool_),
    )
    lower_encoder = export.export(jax.jit(_for_platforms(encoder, platforms)), platforms=platforms)
    lower_decoder = export.export(jax.jit(_for_platforms(decoder, platforms)), platforms=platforms)
    return Functions(lower_encoder(image), lower_decoder(jax.eval_shape(encoder, image), *prompts))


def _for_platforms(function: Callable[..., Any], platforms: Sequence[str]) -> Callable[..., Any]:
    """The function in the form its layers have on each platform; only the CPU's differs, in float32."""

    def on_cpu(*arguments: Any) -> Any:
        with traced_for("cpu"):
            return function(*arguments)

    def elsewhere(*arguments: Any) -> Any:
        with traced_for("gpu"):
            return function(*arguments)

    if set(platforms) == {"cpu"}:
        return on_cpu
    if "cpu" not in platforms:
        return elsewhere
    return lambda *arguments: jax.lax.platform_dependent(*arguments, cpu=on_cpu, default=elsewhere)


def write_export(folder: Path, functions: Functions, details: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Writes both functions and the manifest, all or nothing.

    Args:
      folder: to be made.
      functions: what to write.
      details: goes to the manifest, beside what the functions and files say themselves.
      overwrite: replace an export that is there.

    Raises:
      UserError: the folder exists and may not be replaced, or cannot be written.
    """
    check_export(folder, overwrite)
    arguments = {"encoder": ("image",), "decoder": ("features", "points", "labels", "mask", "has_mask")}
    described = {}
    with new_folder(folder) as unfinished:
        for name, function in functions._asdict().items():
            data = bytes(function.serialize())
            file = f"{name}.jax_export"
            (unfinished / file).write_bytes(data)
            inputs, _ = jax.tree.unflatten(function.in_tree, function.in_avals)
            described[name] = {
                "file": file,
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "calling_convention_version": function.calling_convention_version,
                "inputs": _describe(dict(zip(arguments[name], inputs, strict=True))),
                "outputs": _describe(jax.tree.unflatten(function.out_tree, function.out_avals)),
            }
        manifest = {
            "format_version": FORMAT_VERSION,
            **details,
            "platforms": list(functions.encoder.platforms),
            "functions": described,
            "conventions": CONVENTIONS,
            "versions": {package: version(package) for package in ("ruac_jax", "jax", "jaxlib", "flax")},
        }
        (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def check_export(folder: Path, overwrite: bool) -> None:
    """Fails early where `write_export` would."""
    check_output(folder, overwrite=overwrite, marker=MANIFEST, what="an exported model")


def _describe(tree: Any) -> Signature:
    """Shape and dtype of every array; dimensions that are free are named."""
    if isinstance(tree, Mapping):
        return {name: _describe(part) for name, part in tree.items()}
    shape = [size if isinstance(size, int) else str(size) for size in tree.shape]
    return {"shape": shape, "dtype": str(tree.dtype)}


def main(argv: Sequence[str]) -> None:
    """Exports one model."""
    del argv
    options = flags.FLAGS
    for name in ("checkpoint", "output"):
        if not options[name].value:
            raise UserError(f"--{name} is missing; see --help")
    platforms = _check_platforms(options.platforms)
    output = Path(options.output)
    check_export(output, options.overwrite)
    checkpoint = find_checkpoint(options.checkpoint)
    image_size = _check_image_size(options.image_size, load_metadata(checkpoint))
    model, metadata = load_model(checkpoint)
    functions = export_functions(model, image_size, platforms=platforms, variance=options.variance)
    details = {
        "checkpoint": {key: getattr(metadata, key) for key in _RECORDED},
        "image_size": image_size,
        "variance": options.variance,
    }
    write_export(output, functions, details, overwrite=options.overwrite)
    size = sum(path.stat().st_size for path in output.iterdir()) / 1e6
    print(f"{output}: {metadata.variant}, {image_size} px, for {', '.join(platforms)}; {size:.1f} MB")


_RECORDED = ("variant", "head", "head_settings", "sam2_version", "source", "source_sha256", "fingerprint")


def _check_platforms(names: Sequence[str]) -> list[str]:
    unknown = [name for name in names if name not in PLATFORMS]
    if unknown or not names:
        hint = "; NVIDIA's GPUs are 'cuda', AMD's 'rocm'" if "gpu" in unknown else ""
        found = ", ".join(map(repr, unknown)) or "nothing"
        raise UserError(f"--platforms: expected one or more of {', '.join(PLATFORMS)}, found {found}{hint}")
    return list(dict.fromkeys(names))


def _check_image_size(size: int | None, metadata: ModelMetadata) -> int:
    if size is None:
        return variant(metadata.variant).image_size
    if size % 32:
        raise UserError(f"--image_size {size}: expected a multiple of 32")
    return size


if __name__ == "__main__":
    flags.DEFINE_string("checkpoint", "", "Folder, file or name of a model (docs/checkpoints.md).")
    flags.DEFINE_string("output", "", "Folder to make.")
    flags.DEFINE_list("platforms", ["cpu"], f"Where it shall run: {', '.join(PLATFORMS)}.")
    flags.DEFINE_integer("image_size", None, "Side of the square images, px (default: the variant's).", lower_bound=32)
    flags.DEFINE_enum("variance", "product", ["product", "full"], "Logit variance of the uncertainty.")
    flags.DEFINE_bool("overwrite", False, "Replace an export that is there.")
    run_main(main)
