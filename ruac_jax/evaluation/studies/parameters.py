"""How many parameters each part has, and which of them are trained (appendix P, table S14)."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from flax import nnx

from ruac_jax.attacks.combined import RUACAttack
from ruac_jax.config import Config
from ruac_jax.evaluation.studies.figures import draw_parameters
from ruac_jax.evaluation.studies.output import Finding
from ruac_jax.evaluation.tables import markdown_table, show
from ruac_jax.model import SAM2
from ruac_jax.sam2.variants import variant
from ruac_jax.training.groups import group_of
from ruac_jax.training.system import System
from ruac_jax.weights import ModelMetadata

_PARTS = {
    ("model", "image_encoder"): "image encoder",
    ("model", "sam_prompt_encoder"): "prompt encoder",
    ("model", "sam_mask_decoder"): "mask decoder",
    ("model", "no_mem_embed"): "no-memory embedding",
    ("model", "memory_encoder"): "memory encoder (of the deformation attack)",
    ("model", "head"): "head",
    ("attack", "style"): "style attacker",
    ("attack", "graph"): "graph refinement",
    ("attack", "deformation"): "deformation offsets",
}
_ADDITIONS = ("head", "style attacker", "graph refinement", "deformation offsets")

# Sizes for 256 features: what table S14 rounds and the published weights hold.
_PAPER_FEATURES = 256
_PAPER = {"head": 34_340, "style attacker": 33_926, "graph refinement": 33_928, "deformation offsets": 369_986}
# Of B+, as table S14 rounds them.
_PAPER_VARIANT, _PAPER_ENCODER, _PAPER_SHARE = "base_plus", "69.1 M", "0.68 %"


def count_parameters(model: SAM2, attack: RUACAttack | None, config: Config) -> dict[str, dict[str, int]]:
    """Parameters of each part: `parameters` in all, and those `trained` at the learning rates of `config`.

    Constants, such as the random matrix of the position encoding, are no parameters. Both modules may be abstract.
    """
    total: Counter[str] = Counter(dict.fromkeys(_PARTS.values(), 0))
    trained: Counter[str] = Counter()
    for path, variable in nnx.to_flat_state(nnx.state(System(model, attack), nnx.Param)):
        part = _PARTS[(str(path[0]), str(path[1]))]
        total[part] += variable.get_value().size
        if group_of(path, variable, config.optimizer) != "frozen":
            trained[part] += variable.get_value().size
    return {part: {"parameters": count, "trained": trained[part]} for part, count in total.items()}


def study_parameters(model: SAM2, metadata: ModelMetadata, config: Config) -> Finding:
    """Counts the parameters of a model and of the attack that trains it.

    Args:
      model: any network; it may be abstract.
      metadata: what it is.
      config: settings of the training run, which say what is trained and which attack there is.
    """
    d_model = variant(metadata.variant).d_model
    attack = None
    if config.schedule.adversarial_epochs and config.attack.kind == "learned":
        attack = nnx.eval_shape(lambda: RUACAttack.create(config.attack, d_model, rngs=nnx.Rngs(0)))
    parts = count_parameters(model, attack, config)
    additions = sum(parts[part]["parameters"] for part in _ADDITIONS)
    share = additions / parts["image encoder"]["parameters"]
    paper = {part: f"{count:,}" for part, count in _PAPER.items() if d_model == _PAPER_FEATURES}
    if metadata.head != "weibull":
        paper.pop("head", None)
    elif d_model == _PAPER_FEATURES:
        paper["additions"] = f"{sum(_PAPER.values()):,}"
    if metadata.variant == _PAPER_VARIANT:
        paper |= {"image encoder": _PAPER_ENCODER, "share": _PAPER_SHARE}
    results = {
        "variant": metadata.variant,
        "head": metadata.head,
        "parts": parts,
        "additions": additions,
        "additions_over_encoder": share,
        "paper": paper,
    }
    return Finding(results, _format(results), draw_parameters(parts))


def _format(results: Mapping[str, Any]) -> str:
    parts, paper = results["parts"], results["paper"]

    def row(title: str, state: str, number: str, key: str = "") -> list[str]:
        return [title, state, number, paper.get(key, "-")]

    rows = []
    for part, counts in parts.items():
        state = "-" if not counts["parameters"] else "trained" if counts["trained"] else "frozen"
        title = f"head ({results['head']})" if part == "head" else part
        rows.append(row(title, state, f"{counts['parameters']:,}", part))
    share = show(results["additions_over_encoder"], 2, percent=True)
    rows += [
        row("head and attackers", "", f"{results['additions']:,}", "additions"),
        row("the same over the image encoder", "", f"{share} %", "share"),
        row("all that is trained", "", f"{sum(counts['trained'] for counts in parts.values()):,}"),
        row("everything", "", f"{sum(counts['parameters'] for counts in parts.values()):,}"),
    ]
    header = [f"part of {results['variant']}", "in training", "parameters", "paper"]
    return "\n\n".join(["# Parameters", markdown_table(header, rows, left=2), _LEGEND])


_LEGEND = """Paper: table S14 for SAM2.1 B+, spelt out as the published weights hold it. Constants,
such as the random matrix of the position encoding, are not counted. Attackers serve in training only."""
