"""Random balanced bipartite graphs: which inputs each filter of a sparse layer reads."""

import math
from collections import deque

import torch
from torch import Tensor


def degree(inputs: int, rows: int, reduction: int) -> int:
    """How many of `inputs` each of `rows` reads: one in `reduction`, rounded so that every input is read.

    Raises:
        ValueError: so few rows cannot read all inputs between them.

    """
    if rows < reduction:
        msg = f"where each of its {rows} blocks of filters reads one in {reduction} inputs some are read by none"
        raise ValueError(f"{msg}; take compress.reduction of at most {rows}, or smaller blocks (compress.block)")
    return max(1, round(inputs / reduction), math.ceil(inputs / rows))


def expander(inputs: int, outputs: int, edges_each: int, source: torch.Generator) -> Tensor:
    """A random graph in which each output reads `edges_each` distinct inputs and inputs are read equally often.

    Random orders of all inputs stand behind one another and are dealt out to the outputs; an input that an output has
    already waits for the next one. Degrees of inputs differ by one at most, which an independent draw for each output
    does not give: there some inputs are read by nobody.

    Returns:
        The inputs of each output, ascending, int64, shape (outputs, edges_each).

    Raises:
        ValueError: an output cannot have that many distinct inputs.

    """
    if not 1 <= edges_each <= inputs:
        msg = f"{inputs} inputs give no output {edges_each} distinct ones"
        raise ValueError(msg)
    waiting: deque[int] = deque()
    rows: list[list[int]] = []
    for _ in range(outputs):
        row: set[int] = set()
        again: list[int] = []
        while len(row) < edges_each:
            if not waiting:
                waiting.extend(torch.randperm(inputs, generator=source).tolist())
            one = waiting.popleft()
            if one in row:
                again.append(one)
            else:
                row.add(one)
        waiting.extendleft(reversed(again))
        rows.append(sorted(row))
    return torch.tensor(rows)


def groups(inputs: int, outputs: int, count: int) -> Tensor:
    """The graph of a convolution of `count` groups: the inputs of each group, shape (count, inputs / count).

    Raises:
        ValueError: the groups do not divide the channels.

    """
    if inputs % count or outputs % count:
        told = ", ".join(str(one) for one in range(2, inputs + 1) if inputs % one == outputs % one == 0)
        msg = f"{count} groups (compress.reduction) do not divide {inputs} inputs and {outputs} outputs"
        msg += f"; take one of {told}" if told else "; nothing does: take graph expander"
        raise ValueError(msg)
    return torch.arange(inputs).view(count, inputs // count)


def blocks(outputs: int, size: int) -> int:
    """How many blocks of `size` filters there are.

    Raises:
        ValueError: they do not divide the filters.

    """
    if outputs % size:
        msg = f"blocks of {size} do not divide {outputs} filters (compress.block)"
        raise ValueError(msg)
    return outputs // size
