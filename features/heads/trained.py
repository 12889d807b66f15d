"""A head with its weights: built by name, scored with, kept in a folder and loaded again.

head.json          kind, arguments, feature_dim, classes, digest of the weights
head.safetensors   the weights, under the public names
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError  # raised by torch.load even where it loads weights only
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from manifests import CheckpointError, UsageError, build_record, read_json, write_atomic

from .frame_head import FrameHead
from .linear import LinearHead
from .ms_tct import MSTCT
from .pdan import PDAN
from .super_events import SuperEvents
from .tgm import TGM
from .training import score_rows, seeded

RECORD, WEIGHTS = "head.json", "head.safetensors"
FRAME_HEADS: dict[str, type[FrameHead]] = {
    "pdan": PDAN,
    "tgm": TGM,
    "super_events": SuperEvents,
    "ms_tct": MSTCT,
}
LOAD_ERRORS = (  # what files raise that hold no such head
    *(AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError),
    *(UnpicklingError, UsageError, safetensors.SafetensorError),
)


@dataclass(frozen=True, slots=True, eq=False)
class TrainedHead:
    """A head that scores rows.

    Attributes:
        kind: "linear" or a key of `FRAME_HEADS`.
        classes: Names in id order.
        scorer: The linear head, or the network in evaluation mode.
        notes: How it was trained, as JSON values.
    """

    kind: str
    classes: tuple[str, ...]
    scorer: LinearHead | FrameHead
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def feature_dim(self) -> int:
        """Return the channels of the rows that it takes."""
        if isinstance(self.scorer, LinearHead):
            return len(self.scorer.mean_D)
        return self.scorer.feature_dim

    @property
    def num_parameters(self) -> int:
        """Return the numbers that training chose."""
        if isinstance(self.scorer, LinearHead):
            return self.scorer.weights_DC.size + self.scorer.bias_C.size
        return sum(weight.numel() for weight in self.scorer.parameters())

    def predict(self, feats_SD: np.ndarray) -> np.ndarray:
        """Return the probability of every class on every row of one video, float64 `(S, C)`.

        Raises:
            UsageError: The rows have another number of channels.
        """
        if feats_SD.shape[1] != self.feature_dim:
            raise UsageError(
                f"this {self.kind} head takes rows of {self.feature_dim} channels, but these have "
                f"{feats_SD.shape[1]}; train one on this store"
            )
        if isinstance(self.scorer, LinearHead):
            return self.scorer.predict(feats_SD)
        return score_rows(self.scorer, feats_SD)

    def save(self, folder: Path | str) -> None:
        """Write the weights, then the record with their digest, each at once."""
        if isinstance(self.scorer, LinearHead):
            weights = {
                name: torch.from_numpy(np.ascontiguousarray(array))
                for name, array in dataclasses.asdict(self.scorer).items()
            }
            arguments: dict[str, Any] = {}
        else:
            state = self.scorer.state_dict()
            weights = {name: weight.contiguous().cpu() for name, weight in state.items()}
            arguments = dataclasses.asdict(self.scorer.arguments)
        content = safetensors.torch.save(weights)
        record = {
            "kind": self.kind,
            "arguments": arguments,
            "feature_dim": self.feature_dim,
            "classes": list(self.classes),
            "weights_sha256": hashlib.sha256(content).hexdigest(),
            "notes": dict(self.notes),
        }
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_atomic(Path(folder) / WEIGHTS, content)
        write_atomic(Path(folder) / RECORD, (json.dumps(record, indent=1) + "\n").encode())

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> "TrainedHead":
        """Read what `save` wrote.

        Raises:
            CheckpointError: There is no head, or its files do not belong to each other.
        """
        try:
            record = read_json((Path(folder) / RECORD).read_bytes())
            content = (Path(folder) / WEIGHTS).read_bytes()
            if hashlib.sha256(content).hexdigest() != record["weights_sha256"]:
                raise ValueError(f"{WEIGHTS} is not what {RECORD} says: it is damaged")
            weights = safetensors.torch.load(content)
            classes = tuple(str(name) for name in record["classes"])
            scorer: LinearHead | FrameHead
            if record["kind"] == "linear":
                scorer = LinearHead(**{name: array.numpy() for name, array in weights.items()})
            else:
                built = (record["kind"], record["feature_dim"], len(classes), record["arguments"])
                with torch.device("meta"):  # without memory: the record may ask for any size
                    scorer = build_head(*built)
                scorer.load_state_dict(weights, assign=True)
                scorer.to(device).eval()
            return cls(record["kind"], classes, scorer, record.get("notes", {}))
        except LOAD_ERRORS as err:
            raise CheckpointError(f"{str(folder)!r} holds no head: {err}") from err


def build_head(
    kind: str,
    feature_dim: int,
    num_classes: int,
    arguments: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> FrameHead:
    """Build the network of a kind with random weights, the same ones for a seed.

    Raises:
        UsageError: Arguments that the kind does not have, or cannot take.
    """
    head = FRAME_HEADS[kind]
    options = build_record(head.Arguments, dict(arguments or {}), f"{kind} arguments", "arguments")
    with seeded(seed, torch.device("cpu")):
        return head(feature_dim, num_classes, options)


def read_public_head(
    kind: str, path: Path | str, classes: Sequence[str] | None = None
) -> TrainedHead:
    """Load a state dict that the authors of a head (or their code) saved with torch.

    Args:
        kind: A key of `FRAME_HEADS`.
        path: A file of `torch.save`; nothing but weights is read from it.
        classes: Names in the order of its outputs; their numbers from 0 by default.

    Raises:
        CheckpointError: The file holds no weights of such a head, or of another number of classes.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        scorer = FRAME_HEADS[kind].of_public(weights).eval()
    except LOAD_ERRORS as err:
        raise CheckpointError(f"{str(path)!r} holds no weights of a {kind} head: {err}") from err
    names = tuple(map(str, range(scorer.num_classes) if classes is None else classes))
    if len(names) != scorer.num_classes:
        raise CheckpointError(
            f"the head in {str(path)!r} has {scorer.num_classes} classes, but {len(names)} names "
            f"were given"
        )
    return TrainedHead(kind, names, scorer)
