"""What every metric state promises: no number of shards and no order of merging changes a bit of its figures."""

import json

import numpy as np


def check_merging(empty, parts, figures, trials=12):
    """Merges `parts` in random partitions, orders and trees; `figures(state)` must stay the same to the last bit.

    Returns the figures, to be compared with those of all data at once.
    """
    rng = np.random.default_rng(5)
    whole = empty
    for part in parts:
        whole = whole.merge(part)
    expected = json.dumps(figures(whole), allow_nan=False)
    for _ in range(trials):
        order = rng.permutation(len(parts))
        cuts = np.sort(rng.integers(0, len(parts) + 1, rng.integers(0, len(parts) + 2)))
        shards = []
        for shard in np.split(order, cuts):  # some of them empty
            state = empty
            for index in shard:
                state = state.merge(parts[index]) if rng.random() < 0.5 else parts[index].merge(state)
            shards.append(state)
        while len(shards) > 1:
            left, right = (shards.pop(rng.integers(len(shards))) for _ in range(2))
            shards.append(left.merge(right))
        assert json.dumps(figures(shards[0]), allow_nan=False) == expected
    return json.loads(expected)
