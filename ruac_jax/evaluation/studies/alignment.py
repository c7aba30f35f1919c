"""Do perturbations move the feature channels that a change of domain moves? (appendix K)

An object's features are the means of the decoder's upscaled features (32 channels at stride 4) over its dilated mask.
The shift of a target is the mean over its objects minus the mean over the source's; the shift of a perturbation is the
mean, over the source's objects, of perturbed minus clean. Channel alignment is their Pearson correlation over channels.
"""

import functools
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8
from tqdm import tqdm

from ruac_jax.attacks.attack import AttackOutput, clean_scene
from ruac_jax.attacks.combined import RUACAttack
from ruac_jax.data.record import Record, pad_objects
from ruac_jax.data.transforms import resize as resize_record
from ruac_jax.errors import UserError
from ruac_jax.evaluation.run import Subject
from ruac_jax.evaluation.studies.clicks import SLOTS, clicked_groups
from ruac_jax.evaluation.studies.figures import draw_alignment
from ruac_jax.evaluation.studies.moments import JointMoments
from ruac_jax.evaluation.studies.output import Finding
from ruac_jax.evaluation.studies.perturbations import noise_attack
from ruac_jax.evaluation.tables import markdown_table, show
from ruac_jax.functional.graph import pool
from ruac_jax.functional.resize import resize
from ruac_jax.functional.warp import move_points
from ruac_jax.interaction import repeat_for_objects
from ruac_jax.model import SAM2, ImageFeatures, Prompts, normalize_image

NOISE = "Gaussian noise"
TOP_CHANNELS = 3

# Table S9: correlation and norm; "near zero" is the text's word for the first.
_PAPER = {NOISE: ("near 0", "0.0162"), "learned style and deformation": ("0.811", "0.0460")}


class Scene(NamedTuple):
    """An image at the network's size with up to 8 objects in its first slots.

    Attributes:
      image: RGB.
      masks: the objects; empty in an unused slot.
      valid: which slots hold an object.
      points: their clicks (x, y), px.
      labels: of the clicks.
      number: of the image, for random numbers.
    """

    image: UInt8[np.ndarray, "1 s s 3"]
    masks: Bool[np.ndarray, "1 8 s s"]
    valid: Bool[np.ndarray, "1 8"]
    points: Float[np.ndarray, "1 8 p 2"]
    labels: Int[np.ndarray, "8 p"]
    number: Int[np.ndarray, ""]


def scenes(record: Record, size: int) -> Iterator[Scene]:
    """The objects of a record in groups of 8, stretched to a square of `size` px; those that vanish there left out."""
    number = np.array(zlib.crc32(record["image_id"].encode()), np.uint32)
    for group in clicked_groups(record, size):
        image, masks = resize_record(record["image"], group.masks, size)
        padded, _ = pad_objects(masks, SLOTS)
        valid = padded.any(axis=(1, 2))
        if valid.any():
            yield Scene(image[None], padded[None], valid[None], group.points[None], group.labels, number)


class FeatureShifts:
    """A network that describes objects as they are and as perturbations leave them; each part compiled once."""

    def __init__(self, model: SAM2, image_size: int, attacks: Mapping[str, RUACAttack]):
        """Takes a network, the side of the square images that it sees (px), and attacks by name."""
        self.image_size = image_size
        self.names = (NOISE, *attacks)
        self._attacks = {name: nnx.split(attack) for name, attack in attacks.items()}
        graph, self._state = nnx.split(model)

        @jax.jit
        def encode(state: Any, image: Array) -> ImageFeatures:
            network = nnx.merge(graph, state)
            return network.project(network.backbone(image))

        @jax.jit
        def describe(state: Any, features: ImageFeatures, masks: Array, points: Array, labels: Array) -> Array:
            return object_features(nnx.merge(graph, state), features, masks, points, labels)

        # Parameters are arguments: attacks of one structure, trained or not, are compiled once.
        @functools.partial(jax.jit, static_argnums=0)
        def perturb(
            kind: nnx.GraphDef, parameters: Any, state: Any, embedding: Array, image: Array, scene: Scene
        ) -> AttackOutput:
            encoder = nnx.merge(graph, state).memory_encoder
            clean = clean_scene(embedding, image, scene.masks, scene.valid, encoder)
            return nnx.merge(kind, parameters)(clean, None)

        self._encode, self._describe, self._perturb = encode, describe, perturb
        self._noise, self._normalize, self._move = map(jax.jit, (noise_attack, normalize_image, move_points))

    def clean(self, scene: Scene) -> Float[np.ndarray, "n c"]:
        """Features of the scene's objects."""
        return self._objects(self._features(scene), scene.masks, scene.points, scene.labels)[scene.valid[0]]

    def shifts(self, scene: Scene) -> dict[str, Float[np.ndarray, "m c"]]:
        """Perturbed minus clean features of the scene's objects, by perturbation; without objects that it wiped out."""
        features = self._features(scene)
        clean = self._objects(features, scene.masks, scene.points, scene.labels)
        found = {}
        for name in self.names:
            attacked = self._attack(name, features, scene)
            masks, moved = np.asarray(attacked.masks), np.asarray(self._move(scene.points, attacked.flow))
            after = self._objects(self._encode(self._state, np.asarray(attacked.image)), masks, moved, scene.labels)
            found[name] = (after - clean)[scene.valid[0] & masks[0].any(axis=(1, 2))]
        return found

    # What goes from one compiled part to the next goes as numpy, which looks the same wherever it came from.

    def _image(self, scene: Scene) -> Float[np.ndarray, "1 s s 3"]:
        return np.asarray(self._normalize(scene.image))

    def _features(self, scene: Scene) -> ImageFeatures:
        return self._encode(self._state, self._image(scene))

    def _attack(self, name: str, features: ImageFeatures, scene: Scene) -> AttackOutput:
        if name == NOISE:
            return self._noise(self._image(scene), scene.masks, scene.number)
        kind, parameters = self._attacks[name]
        return self._perturb(kind, parameters, self._state, features.embedding, self._image(scene), scene)

    def _objects(
        self,
        features: ImageFeatures,
        masks: Bool[np.ndarray, "1 8 s s"],
        points: Float[np.ndarray, "1 8 p 2"],
        labels: Int[np.ndarray, "8 p"],
    ) -> Float[np.ndarray, "8 c"]:
        return np.asarray(self._describe(self._state, features, masks, points, labels), np.float64)


def object_features(
    model: SAM2,
    features: ImageFeatures,
    masks: Bool[Array, "1 n s s"],
    points: Float[Array, "1 n p 2"],
    labels: Int[Array, "n p"],
) -> Float[Array, "n c"]:
    """Mean of the decoder's upscaled features over each object's `dilated_cells`; zeros for an empty mask."""
    n = len(labels)
    height, width = features.high_res_s0.shape[1:3]
    prompts = Prompts(points[0], labels, jnp.zeros((n, height, width), jnp.float32), jnp.zeros(n, bool))
    pixels = model.decode(repeat_for_objects(features, n), prompts).pixels.astype(jnp.float32)
    return pool(pixels, dilated_cells(masks[0], (height, width))[:, None])[:, 0]


def dilated_cells(masks: Bool[Array, "n h w"], grid: tuple[int, int]) -> Bool[Array, "n gh gw"]:
    """Cells of a grid that a mask touches, and their eight neighbours: the object with its rim, however small it is."""
    touched = resize(masks[..., None].astype(jnp.float32), grid, "area")[..., 0] > 0
    return jax.lax.reduce_window(touched, False, jax.lax.bitwise_or, (1, 3, 3), (1, 1, 1), "SAME")


def study_alignment(
    model: SAM2, image_size: int, subjects: Sequence[Subject], attacks: Mapping[str, RUACAttack]
) -> Finding:
    """Compares the shifts of perturbations with those of target domains.

    Args:
      model: any network.
      image_size: side of the square images that it sees, px.
      subjects: the source domain first, then the targets.
      attacks: by name, beside noise.

    Raises:
      UserError: no target, or a dataset without objects.
    """
    if len(subjects) < 2:
        raise UserError("alignment compares domains: name the source domain first, then one target or more")
    network = FeatureShifts(model, image_size, attacks)
    source, *targets = (subject.name for subject in subjects)
    perturbed: dict[str, list[Float[np.ndarray, "m c"]]] = {name: [] for name in network.names}
    means: dict[str, Float[np.ndarray, "c"]] = {}
    counts: dict[str, int] = {}
    for subject in subjects:
        vectors = []
        for index in tqdm(subject.indices, subject.name, unit="image", leave=False, dynamic_ncols=True):
            for scene in scenes(subject.source[index], image_size):
                vectors.append(network.clean(scene))
                if subject.name == source:
                    for name, shift in network.shifts(scene).items():
                        perturbed[name].append(shift)
        counts[subject.name] = sum(map(len, vectors))
        if not counts[subject.name]:
            raise UserError(f"{subject.name}: no object in the {len(subject.indices)} images chosen")
        means[subject.name] = np.concatenate(vectors).mean(axis=0)
    shifts = {name: np.concatenate(parts).mean(axis=0) for name, parts in perturbed.items()}
    results = compare_shifts(shifts, {name: means[name] - means[source] for name in targets})
    results |= {"source": source, "objects": counts}
    return Finding(results, _format(results), draw_alignment(results))


def compare_shifts(
    perturbations: Mapping[str, Float[np.ndarray, "c"]], targets: Mapping[str, Float[np.ndarray, "c"]]
) -> dict[str, Any]:
    """Norms, correlations and the channels that move most.

    Returns:
      `target_mean` (mean of the targets' shifts), `targets` and `perturbations` by name, each with `shift` by channel,
      `norm` and `top_channels` (of the largest absolute shift, in falling order); perturbations also with `pearson`
      against `target_mean` and `pearson_by_target`; `top_counts`: how many targets have a channel among their top ones.
    """
    mean = np.mean(list(targets.values()), axis=0)
    described = {name: _describe_shift(shift) for name, shift in targets.items()}
    compared = {
        name: _describe_shift(shift)
        | {
            "pearson": pearson(shift, mean),
            "pearson_by_target": {target: pearson(shift, other) for target, other in targets.items()},
        }
        for name, shift in perturbations.items()
    }
    counts = Counter(channel for found in described.values() for channel in found["top_channels"])
    top = {str(channel): count for channel, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))}
    return {
        "target_mean": _describe_shift(mean),
        "targets": described,
        "perturbations": compared,
        "top_counts": top,
    }


def pearson(first: Float[np.ndarray, "c"], second: Float[np.ndarray, "c"]) -> float | None:
    """Correlation over channels; None where one of the two is the same in every channel."""
    return JointMoments.of(np.stack([first, second])).pearson(0, 1)


def _describe_shift(shift: Float[np.ndarray, "c"]) -> dict[str, Any]:
    order = np.argsort(-np.abs(shift), kind="stable")[:TOP_CHANNELS]
    return {"shift": shift.tolist(), "norm": float(np.linalg.norm(shift)), "top_channels": order.tolist()}


def _format(results: Mapping[str, Any]) -> str:
    perturbations, targets = results["perturbations"], results["targets"]
    first = [
        [name, show(found["pearson"], 3), show(found["norm"]), _channels(found), *_PAPER.get(name, ("-", "-"))]
        for name, found in perturbations.items()
    ]

    def row(name: str, objects: str, found: Mapping[str, Any], correlations: Sequence[float | None]) -> list[str]:
        return [name, objects, show(found["norm"]), _channels(found), *(show(r, 3) for r in correlations)]

    second = [
        row(name, str(results["objects"][name]), found, [p["pearson_by_target"][name] for p in perturbations.values()])
        for name, found in targets.items()
    ]
    second.append(row("mean of targets", "", results["target_mean"], [p["pearson"] for p in perturbations.values()]))
    source, common = results["source"], list(results["top_counts"].items())[:5]
    return "\n\n".join(
        [
            "# Channel alignment",
            f"Source: {source}, {results['objects'][source]} objects. Targets: {len(targets)}.",
            markdown_table(["perturbation", "r", "norm", "top channels", "paper's r", "paper's norm"], first),
            _LEGEND,
            "## Targets, and r of each perturbation with each of them",
            markdown_table(["target", "objects", "norm", "top channels", *perturbations], second),
            f"Most often among the {TOP_CHANNELS} top channels of a target: "
            + ", ".join(f"channel {channel} ({count} targets)" for channel, count in common)
            + ".",
        ]
    )


def _channels(found: Mapping[str, Any]) -> str:
    return " ".join(map(str, found["top_channels"]))


_LEGEND = """r: Pearson correlation, over the channels, of the perturbation's shift with the targets' mean shift;
norm: length of the shift. The paper's figures (table S9) belong to its own network and targets: its norms say nothing
about others."""
