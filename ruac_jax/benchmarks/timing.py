"""Times a function in this process and prints the result as one JSON line; knows neither JAX nor PyTorch."""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

_WARM_UP = 2


def settings_from_command_line() -> dict[str, Any]:
    """The JSON object that the benchmark command passes to each side."""
    return json.loads(sys.argv[1])


def report(call: Callable[[], None], repeats: int) -> None:
    """Calls a function that returns when its work is done; prints seconds of each call and the peak memory (MiB)."""
    for _ in range(_WARM_UP):
        call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": peak_mib}))
