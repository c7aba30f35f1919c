"""Prepares a dataset: `python -m ruac_jax.prepare_data trashcan --source DIR --data_dir datasets`.

Every file is checked, and all that cannot be used are named in one error. The dataset appears under its name in one
move when it is complete: a run that was killed leaves nothing that could be mistaken for one, and the next run starts
cleanly. `--list` describes the datasets; `custom` takes your own images:
`python -m ruac_jax.prepare_data custom --name mine --images DIR --annotations COCO.json` (or a folder of label PNGs).
"""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from ruac_jax.data.catalog import DATASETS, describe
from ruac_jax.data.custom import custom_dataset
from ruac_jax.data.dataset import Dataset
from ruac_jax.data.preparation import prepare
from ruac_jax.errors import UserError, run_main

CUSTOM = "custom"


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    options = flags.FLAGS
    if options.list:
        print("\n\n".join(describe(dataset) for dataset in DATASETS.values()))
        return
    dataset, source = _chosen(argv[1] if len(argv) > 1 else "")
    split = options.split or ("train" if dataset.group == "source" else dataset.evaluation_split)
    result = prepare(
        dataset,
        source,
        Path(options.data_dir),
        split=split,
        clips=Path(options.clips) if options.clips else None,
        all_frames=None if options.frames is None else options.frames == "all",
        skip_bad=options.skip_bad,
        overwrite=options.overwrite,
    )
    if result.skipped:
        print(f"left out {len(result.skipped)} files:\n  " + "\n  ".join(result.skipped))
    if result.images:
        print(f"{result.images} images with {result.objects} objects written to {result.folder}")
        _compare_counts(dataset, split, result.images, result.objects)
    else:
        print(f"{result.folder} is there already, made of the same files; --overwrite builds it anew")


def _chosen(name: str) -> tuple[Dataset, Path]:
    options = flags.FLAGS
    if name == CUSTOM:
        for flag in ("name", "images", "annotations"):
            if not options[flag].value:
                raise UserError(f"custom needs --{flag}; see --help")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", options.name):
            raise UserError(f"--name {options.name!r}: lower case, digits and underscores, a letter first")
        if options.name in DATASETS:
            raise UserError(f"--name {options.name!r} is a published dataset's: choose another")
        return custom_dataset(options.name, Path(options.images), Path(options.annotations)), Path(options.images)
    if name not in DATASETS:
        near = difflib.get_close_matches(name, [*DATASETS, CUSTOM], 1)
        found = f"no dataset {name!r}{f', did you mean {near[0]!r}?' if near else ''}" if name else "which dataset?"
        raise UserError(f"{found}; known are {', '.join(DATASETS)}, and {CUSTOM} for your own (--list describes them)")
    if not options.source:
        raise UserError(
            f"--source DIR is needed: the folder with the unpacked download of {name}\n  {describe(DATASETS[name])}"
        )
    return DATASETS[name], Path(options.source)


def _compare_counts(dataset: Dataset, split: str, images: int, objects: int) -> None:
    published = dataset.splits.get(split)
    if published is None:
        return
    pairs = (("images", images, published.images), ("masks", objects, published.masks))
    different = [f"{found} {what} of {count}" for what, found, count in pairs if count not in (None, found)]
    if different:
        print(f"published are other counts than these: {', '.join(different)}; a part of the download?")


if __name__ == "__main__":
    flags.DEFINE_string("source", None, "Folder with the unpacked download.")
    flags.DEFINE_string("data_dir", "datasets", "Where prepared datasets lie.")
    flags.DEFINE_string("split", None, "Split to prepare; default: the one that is judged (of mose: train).")
    flags.DEFINE_string("clips", None, "File of clip names to keep, one a line.")
    flags.DEFINE_enum("frames", None, ["first", "all"], "Of videos: the first frame, or all (default of mose).")
    flags.DEFINE_string("name", None, "custom: what to call the dataset.")
    flags.DEFINE_string("images", None, "custom: folder of images.")
    flags.DEFINE_string("annotations", None, "custom: a COCO JSON file, or a folder of label or instance PNGs.")
    flags.DEFINE_bool("skip_bad", False, "Leave files out that cannot be used, instead of failing.")
    flags.DEFINE_bool("overwrite", False, "Replace a dataset that is there.")
    flags.DEFINE_bool("list", False, "Describe the datasets.")
    run_main(main, positional=1)
