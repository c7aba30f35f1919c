"""Finds the Weibull head's tensors in a file that calls them by other names.

The published RUAC weights keep their head under `sam_mask_decoder.pixel_bndl.`, with inner names that are not public.
Its widths are, so each of our layers is looked for by its shapes: a layer is a group of tensors that share a prefix
(the name without its last part). Exactly one group may fit each layer.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from convert.names import Shape
from ruac_jax.errors import UserError


def match_head(expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> tuple[dict[str, str], list[str]]:
    """Assigns the tensors of a head to ours.

    Args:
      expected: PyTorch shapes of our head's tensors by our PyTorch name.
      found: shapes of the file's head tensors by their name there.

    Returns:
      Our name by the file's name, and the name of the class bias (a tensor of two values that no layer has), if any.

    Raises:
      UserError: a layer has no group that fits or several, or tensors are left over; lists all of it.
    """
    if set(expected) <= set(found):  # written by this project
        return _checked([(name, name) for name in expected], found, [])
    problems: list[str] = []
    pairs: list[tuple[str, str]] = []
    groups = _groups(name for name, shape in found.items() if shape != (2,))
    for layer, parts in _groups(expected).items():
        fitting = [group for group in groups.values() if _signature(group, found) == _signature(parts, expected)]
        shapes = ", ".join(str(expected[name]) for name in parts)
        if not fitting:
            problems.append(f"  nothing fits {layer} ({shapes})")
        elif len(fitting) > 1:
            problems.append(f"  several fit {layer} ({shapes}): {'; '.join(', '.join(group) for group in fitting)}")
        pairs += [
            (theirs, ours)
            for group in fitting
            for theirs, ours in zip(_by_axes(group, found), _by_axes(parts, expected), strict=True)
        ]
    return _checked(pairs, found, problems)


def _checked(
    pairs: list[tuple[str, str]], found: Mapping[str, Shape], problems: list[str]
) -> tuple[dict[str, str], list[str]]:
    names = dict(pairs)
    rest = sorted(name for name in found if name not in names)
    class_biases = [name for name in rest if math.prod(found[name]) == 2]
    problems = problems + [f"  belongs to no layer: {name} {found[name]}" for name in rest if name not in class_biases]
    if len(class_biases) > 1:
        problems.append(f"  several tensors of two values, one could be the class bias: {', '.join(class_biases)}")
    if not problems and len(names) < len(pairs):
        problems = [
            f"  fits several layers: {name}" for name, count in Counter(pair[0] for pair in pairs).items() if count > 1
        ]
    if problems:
        raise UserError("\n".join(["cannot tell the Weibull head's tensors apart:", *problems]))
    return names, class_biases


def _groups(names: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(name.rpartition(".")[0], []).append(name)
    return groups


def _plain(shape: Shape) -> Shape:
    # A linear layer over pixels may have been written as a 1x1 convolution.
    return shape[:2] if shape[2:] == (1, 1) else shape


def _by_axes(names: Iterable[str], shapes: Mapping[str, Shape]) -> list[str]:
    return sorted(names, key=lambda name: len(_plain(shapes[name])))


def _signature(names: Iterable[str], shapes: Mapping[str, Shape]) -> list[Shape]:
    return sorted(_plain(shapes[name]) for name in names)
