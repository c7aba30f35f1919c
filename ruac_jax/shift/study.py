"""The shift benchmark: every system from the same bases, several seeds, one report (docs/systems.md)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ruac_jax.data.shapes import DEVELOPMENT, HELD_OUT, SOURCE, TARGETS
from ruac_jax.data.sources import GENERATED
from ruac_jax.evaluation.figures import save_figure
from ruac_jax.evaluation.run import group_of
from ruac_jax.evaluation.tables import markdown_table, show
from ruac_jax.folders import locked
from ruac_jax.shift.figures import draw_domains, draw_systems
from ruac_jax.shift.report import Results, format_set, format_summary
from ruac_jax.shift.runs import Entry, Outcome, run_entry

_KIND_METRICS = ("j_and_f", "aurc", "auroc", "auroc_object", "ece", "ece_matched", "nll")
_TRAINING = {
    "kappa_at_lower": ("kappa at lower clamp", 1, True),
    "kappa_at_upper": ("at upper", 1, True),
    "style_shift": ("style shift", 3, False),
    "style_saturated": ("saturated", 1, True),
    "flow_px": ("flow, px", 2, False),
    "loss_clean": ("loss, clean", 3, False),
    "loss_learned": ("learned", 3, False),
    "loss_signs": ("random signs", 3, False),
    "loss_uniform": ("uniform", 3, False),
}


class Domains(NamedTuple):
    """What systems are judged on.

    Attributes:
      source: unseen images of the domain that they are trained on.
      sets: targets by the name of their set.
      kinds: of shift, by target.
      hidden: sets that are reported only when asked for.
    """

    source: str
    sets: dict[str, list[str]]
    kinds: dict[str, str]
    hidden: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """All, the source first."""
        return [self.source, *(name for members in self.sets.values() for name in members)]


GENERATED_DOMAINS = Domains(
    source=GENERATED + SOURCE,
    sets={
        "development": [GENERATED + name for name in DEVELOPMENT],
        "held-out": [GENERATED + name for name in HELD_OUT],
    },
    kinds={GENERATED + name: kind for name, kind in TARGETS.items()},
    hidden=("held-out",),
)


def named_domains(names: Sequence[str]) -> Domains:
    """Prepared datasets, the source first; their kinds are their groups."""
    source, *targets = names
    return Domains(source, {"target": targets}, {name: group_of(name) for name in targets})


def run_study(
    entries: Sequence[Entry], domains: Domains, output: Path, num_images: int, data_dir: str
) -> dict[str, dict[int, Outcome]]:
    """Runs what is not done yet. Processes of the same output share the work; each returns when all of it is done.

    Args:
      entries: systems and seeds, in the order of the tables.
      domains: what to evaluate on.
      output: `results/` keeps an outcome a file, `runs/` the networks.
      num_images: of each domain, at most.
      data_dir: where prepared datasets lie.

    Returns:
      Outcomes by system and seed.
    """
    outcomes: dict[str, dict[int, Outcome]] = {entry.system: {} for entry in entries}
    runs = output / "runs"
    with tqdm(total=len(entries), unit="run", desc="shift", dynamic_ncols=True) as bar:
        for wait in (False, True):  # what another process is at comes last
            for entry in entries:
                system, seed = entry.system, entry.config.seed
                if seed in outcomes[system]:
                    continue
                bar.set_postfix_str(f"{system}, seed {seed}")
                file = output / "results" / f"{system}-seed{seed}.json"
                with locked(runs / f".{file.stem}.lock", wait=wait) as held:
                    if held:
                        outcomes[system][seed] = run_entry(entry, domains.names, num_images, data_dir, runs, file)
                        bar.update()
    return outcomes


def write_report(
    outcomes: Mapping[str, Mapping[int, Outcome]],
    domains: Domains,
    reference: str,
    output: Path,
    *,
    held_out: bool,
    command: str,
) -> str:
    """Writes `report.md` and its figures.

    Args:
      outcomes: of `run_study`.
      domains: what they are about.
      reference: the system that all are compared with.
      output: folder.
      held_out: show the hidden sets too: once, when every choice is made.
      command: what made the report.

    Returns:
      The Markdown.
    """
    results: Results = {
        system: {seed: outcome.domains for seed, outcome in seeds.items()} for system, seeds in outcomes.items()
    }
    seconds = sum(outcome.seconds for seeds in outcomes.values() for outcome in seeds.values())
    runs = sum(len(seeds) for seeds in outcomes.values())
    parts = [
        "# Shift benchmark",
        f"`{command}`",
        f"{runs} runs, {seconds / 60:.0f} minutes in all, shared bases apart. "
        f"Differences are to {reference}, paired by seed; in brackets the seeds in which they are a gain. "
        "Percent, but AURC, E-AURC, ECE and NLL.",
        f"## Source domain ({domains.source}, unseen images)",
        format_summary(results, reference, [domains.source]),
    ]
    output.mkdir(parents=True, exist_ok=True)
    for title, members in domains.sets.items():
        if title in domains.hidden and not held_out:
            continue
        systems, by_domain = f"systems-{title}.png", f"domains-{title}.png"
        parts.append(f"## {title.capitalize()} domains")
        if len(results) > 1:  # figures show differences to the reference
            parts += [f"![Systems]({systems})", f"![Domains]({by_domain})"]
            save_figure(draw_systems(results, reference, members), output / systems)
            save_figure(draw_domains(results, reference, members, domains.kinds, "j_and_f"), output / by_domain)
        parts.append(format_set(results, reference, members, domains.kinds, _KIND_METRICS))
    parts += ["## Training", _TRAINING_NOTE, format_training(outcomes)]
    text = "\n\n".join(parts)
    (output / "report.md").write_text(text + "\n", encoding="utf-8")
    return text


_TRAINING_NOTE = """At the last step: share of kappa at its clamps, mean size and saturated share of the style shifts,
mean flow. Then the segmentation loss per object on unseen source images: clean, under the learned attack, under one of
the same sizes in random directions, and under one drawn evenly within the budget. Means over seeds."""


def format_training(outcomes: Mapping[str, Mapping[int, Outcome]]) -> str:
    """What training says of itself, mean over seeds."""
    rows = []
    for system, seeds in outcomes.items():
        cells = []
        for name, (_, digits, percent) in _TRAINING.items():
            values = [outcome.training[name] for outcome in seeds.values() if name in outcome.training]
            cells.append(show(sum(values) / len(values) if values else None, digits, percent=percent))
        minutes = sum(outcome.seconds for outcome in seeds.values()) / len(seeds) / 60
        rows.append([system, *cells, f"{minutes:.1f}"])
    return markdown_table(["system", *(title for title, *_ in _TRAINING.values()), "minutes"], rows)
