"""Run a network that is a list of operators, as a file of `torch.export.save` has it.

`program_file.py` reads the file; nothing here depends on where the list came from.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from manifests import CheckpointError, first_line


class Name(NamedTuple):
    """Stands for what an input or an earlier operator gave."""

    of: str


@dataclass(frozen=True, slots=True)
class Step:
    """One operator.

    Attributes:
        call: What computes.
        target: What the file calls it.
        positional: Arguments; `Name`s stand for values, also within lists.
        named: Arguments by name.
        results: Names of what comes out: one, or one for each of a tuple; None where unused.
        forget: Names that no later step needs.
    """

    call: Callable[..., Any]
    target: str
    positional: tuple[Any, ...]
    named: Mapping[str, Any]
    results: tuple[str | None, ...] | str
    forget: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """A network from one tensor to one tensor; calls from several threads don't meet.

    Attributes:
        path: Its file.
        input_sizes: Sizes of the tensor that goes in; None where any will do.
        fewest: Least size of the first dimension.
        most: Largest size of it; None if there is none.
        weights: Parameters, buffers and constants, by the name of the input that they are.
        input_name: Name of the tensor that goes in.
        output_name: Name of the one that comes out.
        steps: The operators, in order.
    """

    path: Path
    input_sizes: tuple[int | None, ...]
    fewest: int
    most: int | None
    weights: Mapping[str, torch.Tensor]
    input_name: str
    output_name: str
    steps: tuple[Step, ...]

    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        """Return what comes out for clips; where their number is fixed, they are filled up to it.

        Raises:
            CheckpointError: An operator fails.
        """
        size = len(clips) if self.most is None else self.most
        parts = [clips[i : i + size] for i in range(0, len(clips), size)]
        return torch.cat([self._run(part) for part in parts])

    def _run(self, clips: torch.Tensor) -> torch.Tensor:
        absent = self.fewest - len(clips)
        if absent > 0:
            filling = clips[-1:].expand(absent, *clips.shape[1:])
            return self._run(torch.cat([clips, filling]))[:-absent]
        # Strides are part of what was traced: the network may look at its input as one row.
        values: dict[str, Any] = {**self.weights, self.input_name: clips.contiguous()}
        for step in self.steps:
            try:
                positional = [_fill(value, values) for value in step.positional]
                named = {name: _fill(value, values) for name, value in step.named.items()}
                result = step.call(*positional, **named)
            except (RuntimeError, TypeError, ValueError, LookupError, ArithmeticError) as err:
                raise CheckpointError(
                    f"operator {step.target!r} of the program {str(self.path)!r} fails: "
                    f"{first_line(err)}"
                ) from err
            if isinstance(step.results, str):
                values[step.results] = result
            elif step.results:
                values |= {n: r for n, r in zip(step.results, result, strict=True) if n}
            for name in step.forget:
                values.pop(name, None)
        output = values.get(self.output_name)
        if not isinstance(output, torch.Tensor):
            raise CheckpointError(f"the program {str(self.path)!r} must return a tensor")
        return output


def _fill(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, Name):
        return values[value.of]
    return [_fill(item, values) for item in value] if isinstance(value, list) else value
