"""The published datasets that can be prepared: MOSE and the 23 targets of the paper (table S6), by name."""

from ruac_jax.data.builders import (
    ade20k,
    bbbc038,
    cityscapes,
    doors,
    dram,
    egohos,
    gtea,
    hypersim,
    ibd,
    ishape,
    lvis,
    mose,
    ndd20,
    ndispark,
    ovis,
    pidray,
    plittersdorf,
    ppdls,
    streets,
    timberseg,
    trashcan,
    visor,
    woodscape,
    zerowaste_f,
)
from ruac_jax.data.dataset import Counts, Dataset

# In the order of the paper's tables: the source, then its four groups.
DATASETS: dict[str, Dataset] = {
    module.DATASET.name: module.DATASET
    for module in (
        mose,
        *(trashcan, ishape, zerowaste_f, lvis, ndd20, plittersdorf, timberseg, dram),
        *(cityscapes, ade20k, hypersim, woodscape, streets, ndispark, doors),
        *(bbbc038, ibd, pidray, ppdls),
        *(gtea, egohos, visor, ovis),
    )
}


def describe(dataset: Dataset) -> str:
    """What a user has to know before preparing it, in a few lines."""
    splits = (f"{name} ({_counts(counts)})" for name, counts in dataset.splits.items())
    lines = [
        f"{dataset.name}: {dataset.title}",
        f"group     {dataset.group}",
        f"splits    {', '.join(splits)}; judged: {dataset.evaluation_split}",
        f"licence   {dataset.license}",
        f"from      {dataset.download}",
        f"expects   {dataset.layout}",
    ]
    return "\n  ".join(lines + ([f"note      {dataset.notes}"] if dataset.notes else []))


def _counts(counts: Counts) -> str:
    images, masks = ("?" if count is None else f"{count:,}" for count in counts)
    return f"{images} images, {masks} masks"
