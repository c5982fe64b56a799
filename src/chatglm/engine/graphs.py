"""Runs steps as CUDA graphs: recorded once for each size, and then replayed.

For a step of few tokens, Python needs more time to launch the kernels than the GPU needs to run them. The inputs of a
step come as one tensor; everything else must be at the same address as when the step was recorded.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Graphs"]

_log = logging.getLogger("chatglm.engine")
_KEPT = 64
"""Most graphs that are kept; each takes some megabytes in addition to the memory that they share."""


@dataclass
class _Graph:
    given: Tensor
    result: Tensor
    graph: Any


class Graphs:
    """Recorded steps on one device. They share the memory for results."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None
        self._seen: OrderedDict[Hashable, _Graph | None] = OrderedDict()  # None: has run once, is not recorded yet
        self._off = False

    def clear(self) -> None:
        """Delete all graphs, because the memory that they use has moved or changed."""
        self._seen.clear()
        self._pool = None

    def run(self, key: Hashable, given: Tensor, work: Callable[[Tensor], Tensor]) -> Tensor:
        """Return work(given), on the device. The first run is direct, to compile kernels; later ones use a graph.

        Args:
            key: identifies `work` and the shape of `given`.
            given: the input, in the CPU's memory.
        """
        known = self._seen.get(key)
        if known is None:
            there = given.to(self._device)
            if self._off or key not in self._seen:
                self._seen[key] = None
                return work(there)
            known = self._record(there, work)
            if known is None:
                return work(there)
            self._seen[key] = known
        else:
            known.given.copy_(given)
        self._seen.move_to_end(key)
        while len(self._seen) > _KEPT:
            self._seen.popitem(last=False)
        known.graph.replay()
        return known.result.clone()  # the next run overwrites the result

    def _record(self, given: Tensor, work: Callable[[Tensor], Tensor]) -> _Graph | None:
        graph = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        try:
            # Other threads may use the device meanwhile.
            with (
                torch.cuda.device(self._device),
                torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"),
            ):
                result = work(given)
        except Exception as error:
            _log.warning("steps are not recorded as CUDA graphs from now on: %s", str(error).splitlines()[0])
            self._off = True
            return None
        return _Graph(given, result, graph)
