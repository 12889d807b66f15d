"""Read a network that was saved with `torch.export.save`, and nothing else that its file may hold.

PyTorch's own loader unpickles parts of such a file and turns names and expressions in it into
Python source, so a file from a stranger can run anything. But what it says is a list of operators,
as JSON, and weights, as plain numbers. This reads both, and `program.py` calls the operators one
after the other: those of PyTorch's library `aten`, and arithmetic on sizes; no others are taken.
What else there is, is not opened.

    models/NAME.json                       the operators, and what goes in and out
    data/weights/NAME_weights_config.json  type, sizes and strides of every weight, and its file
    data/constants/...                     the same of tensors that the code holds
    data/sample_inputs/...                 a pickle; never read

Source: PyTorch, `torch/_export/serde/schema.py`, schema version 8.
"""

import operator
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from manifests import CheckpointError, read_json

from .program import Name, Program, Step

SCHEMA = 8
LARGEST_BATCH = 4096  # that a network may insist on
ATEN = re.compile(r"torch\.ops\.aten\.([a-z_]\w*)\.([A-Za-z]\w*)")
# What starts with an underscore may skip checks; these are what exported networks are made of.
PRIVATE = {
    *("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "_assert_scalar", "_assert_tensor_metadata"),
    *("_fused_rms_norm", "_local_scalar_dense", "_log_softmax", "_native_batch_norm_legit"),
    *("_native_batch_norm_legit_no_training", "_native_multi_head_attention", "_safe_softmax"),
    *("_scaled_dot_product_attention_math", "_scaled_dot_product_efficient_attention"),
    *("_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_attention_for_cpu"),
    *("_softmax", "_to_copy", "_transformer_encoder_layer_fwd", "_unsafe_view"),
}
SYMBOL = re.compile(r"Symbol\('(\w+)'[^()]*\)|(\w+)")
# What an operator may be told in words; others name files.
WORDS = {
    *("approximate", "equation", "indexing", "mode", "padding", "padding_mode", "reduce"),
    *("rounding_mode", "side"),
}
ARITHMETIC: Mapping[str, Callable[..., Any]] = {
    **{
        f"_operator.{name}": getattr(operator, name)
        for name in (
            *("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "pos"),
            *("eq", "ne", "le", "ge", "lt", "gt", "and_", "or_"),
        )
    },
    "torch.sym_int": int,
    "torch.sym_float": float,
    "torch.sym_max": max,
    "torch.sym_min": min,
    "torch.sym_not": operator.not_,
    "math.trunc": int,
}
DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
STRIDED = 7  # the only layout
MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}


def open_program(path: Path, device: torch.device) -> Program:
    """Read a program and put its weights on `device`.

    Raises:
        CheckpointError: It is no program, or not one from one tensor to one tensor by operators of
            `aten` alone; weights that are pickles; a network in training mode.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(path, archive, device).program()
    except FileNotFoundError as err:
        raise CheckpointError(f"no such program: {str(path)!r}") from err
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as err:
        raise CheckpointError(f"{str(path)!r} is no program of torch.export.save: {err}") from err
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as err:
        raise CheckpointError(
            f"the program {str(path)!r} is damaged, or of a kind that is not known here: "
            f"{type(err).__name__} {err}"
        ) from err


class _Reader:
    """What is known while a program is read."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, device: torch.device) -> None:
        self.path, self.archive, self.device = path, archive, device
        names = archive.namelist()
        self.root = next((n.rpartition("/")[0] for n in names if n.endswith("archive_format")), "")
        models = re.compile(re.escape(self.root) + r"/models/(\w+)\.json")
        found = [match[1] for match in map(models.fullmatch, names) if match]
        if len(found) != 1 or self._read("archive_format") != b"pt2":
            raise CheckpointError(
                f"{str(path)!r} must be one program, saved by torch.export.save of PyTorch 2.8 or "
                "later"
            )
        self.name = found[0]

    def program(self) -> Program:
        record = read_json(self._read(f"models/{self.name}.json"))
        if record["schema_version"]["major"] != SCHEMA:
            raise self._refuse(f"has schema version {record['schema_version']}, not {SCHEMA}")
        if self._read("byteorder") != b"little":
            raise self._refuse("must have its weights in little-endian order")
        module = record["graph_module"]
        graph, signature = module["graph"], module["signature"]
        outputs = signature["output_specs"]
        if len(outputs) != 1 or [*outputs[0]] != ["user_output"]:
            raise self._refuse("must return one tensor, and change none")
        stored = self._tensors("weights") | self._tensors("constants")
        weights, inputs = {}, []
        for spec in signature["input_specs"]:
            ((kind, of),) = spec.items()
            if kind == "user_input":
                inputs.append(of["arg"]["as_tensor"]["name"])
            else:
                weights[of["arg"]["name"]] = stored[of[f"{kind}_name"]]
        if len(inputs) != 1:
            raise self._refuse(f"must take one tensor of clips, but takes {len(inputs)}")
        sizes = graph["tensor_values"][inputs[0]]["sizes"]
        fewest, most = self._batch(sizes[0], record)
        (output,) = graph["outputs"]
        return Program(
            path=self.path,
            input_sizes=tuple(size.get("as_int") for size in sizes),
            fewest=fewest,
            most=most,
            weights=weights,
            input_name=inputs[0],
            output_name=output["as_tensor"]["name"],
            steps=self._steps(graph["nodes"], {*weights}, output["as_tensor"]["name"]),
        )

    def _batch(self, size: Mapping[str, Any], record: Mapping[str, Any]) -> tuple[int, int | None]:
        """Return the least and the largest number of clips in a batch."""
        if "as_int" in size:
            fewest = most = size["as_int"]
        else:
            symbol = SYMBOL.fullmatch(size["as_expr"]["expr_str"])
            if symbol is None:
                raise self._refuse("must have a number of clips that is free or fixed")
            limits = record["range_constraints"].get(symbol[1] or symbol[2], {})
            fewest, most = max(limits.get("min_val") or 1, 1), limits.get("max_val")
        if not 1 <= fewest <= LARGEST_BATCH or (most is not None and most < fewest):
            raise self._refuse(
                f"must take 1 to {LARGEST_BATCH} clips at once, but takes {fewest} to {most}"
            )
        return fewest, most

    def _tensors(self, kind: str) -> dict[str, torch.Tensor]:
        """Return the "weights" or the "constants" by name, as their record has them."""
        files: dict[tuple[str, int], torch.Tensor] = {}
        tensors = {}
        config = f"data/{kind}/{self.name}_{kind}_config.json"
        for name, payload in read_json(self._read(config))["config"].items():
            meta = payload["tensor_meta"]
            if payload["use_pickle"] or meta is None or meta["layout"] != STRIDED:
                raise self._refuse(f"holds {name!r} as a pickle, which is not opened")
            file = (payload["path_name"], meta["dtype"])
            if file not in files:
                files[file] = self._numbers(f"data/{kind}/{file[0]}", DTYPES[meta["dtype"]])
            sizes, strides = ([n["as_int"] for n in meta[key]] for key in ("sizes", "strides"))
            offset = meta["storage_offset"]["as_int"]
            tensors[name] = files[file].as_strided(sizes, strides, offset)
        return tensors

    def _numbers(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        content = bytearray(self._read(name))
        numbers = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return numbers.to(self.device)

    def _read(self, name: str) -> bytes:
        member = self.archive.getinfo(f"{self.root}/{name}")
        if member.compress_type != zipfile.ZIP_STORED:
            raise self._refuse(f"must not be compressed, as {name!r} is")
        return self.archive.read(member)

    def _steps(
        self, nodes: Sequence[Mapping[str, Any]], weights: set[str], output: str
    ) -> tuple[Step, ...]:
        steps, needed = [], {output}
        for node in reversed(nodes):
            step = self._step(node, weights)
            used = {
                name for value in (*step.positional, *step.named.values()) for name in _of(value)
            }
            results = {step.results} if isinstance(step.results, str) else {*step.results}
            forget = (used | {n for n in results if n}) - needed - weights
            steps.append(
                Step(step.call, step.target, step.positional, step.named, step.results, (*forget,))
            )
            needed |= used
        return tuple(reversed(steps))

    def _step(self, node: Mapping[str, Any], weights: set[str]) -> Step:
        target, results = node["target"], self._results(node["outputs"])
        call = self._operator(target)
        values = {item["name"]: self._value(item["arg"]) for item in node["inputs"]}
        if not isinstance(call, torch._ops.OpOverload):
            return Step(call, target, tuple(values.values()), {}, results, ())
        for argument in call._schema.arguments:
            value = values.get(argument.name)
            if isinstance(value, str) and argument.name not in WORDS:
                raise self._refuse(f"gives {target!r} the text {argument.name}={value!r}")
            if argument.name in ("train", "training") and value is True:
                raise self._refuse(
                    f"was exported in training mode ({target!r}); call eval() before"
                )
            is_changed = argument.alias_info is not None and argument.alias_info.is_write
            if is_changed and weights & set(_of(value)):
                raise self._refuse(f"changes its own weights by {target!r}")
        return Step(call, target, (), values, results, ())

    def _operator(self, target: str) -> Callable[..., Any]:
        """Return what a file calls `target`, if it may be run."""
        if target in ARITHMETIC:
            return ARITHMETIC[target]
        found = ATEN.fullmatch(target)
        call = getattr(getattr(torch.ops.aten, found[1], None), found[2], None) if found else None
        is_private = found is not None and found[1][0] == "_" and found[1] not in PRIVATE
        if is_private or not isinstance(call, torch._ops.OpOverload):
            raise self._refuse(
                f"runs {target!r}, but only public operators of 'aten' are known here; export the "
                "network in evaluation mode, without torch.no_grad or autocast inside of it"
            )
        return call

    def _results(self, outputs: Sequence[Mapping[str, Any]]) -> tuple[str | None, ...] | str:
        """Return the names of what an operator gives."""
        names: list[str | None] = []
        for output in outputs:
            ((kind, of),) = output.items()
            if kind == "as_tensors":
                names += [tensor["name"] for tensor in of]
            elif kind == "as_none":
                names.append(None)
            else:
                names.append(self._value(output).of)
        if len(outputs) == 1 and "as_tensors" not in outputs[0]:
            return names[0] or ()
        return tuple(names)

    def _value(self, argument: Mapping[str, Any]) -> Any:
        """Return an argument as an operator takes it; a device is ours, whatever the export's."""
        return self.device if "as_device" in argument else _plain(argument)

    def _refuse(self, clause: str) -> CheckpointError:
        return CheckpointError(f"the program {str(self.path)!r} {clause}")


def _plain(argument: Mapping[str, Any]) -> Any:
    ((kind, value),) = argument.items()
    return ARGUMENTS[kind](value)


def _plain_all(arguments: Sequence[Mapping[str, Any]]) -> list[Any]:
    return [_plain(argument) for argument in arguments]


def _as_it_is(value: Any) -> Any:
    return value


# What the file calls the kinds of arguments, and how operators take them.
ARGUMENTS: Mapping[str, Callable[[Any], Any]] = {
    "as_none": lambda value: None,
    "as_tensor": lambda value: Name(value["name"]),
    "as_tensors": lambda value: [Name(tensor["name"]) for tensor in value],
    "as_optional_tensor": _plain,
    "as_optional_tensors": _plain_all,
    "as_name": Name,
    **dict.fromkeys(("as_sym_int", "as_sym_float", "as_sym_bool"), _plain),
    **dict.fromkeys(("as_sym_ints", "as_sym_floats", "as_sym_bools"), _plain_all),
    **dict.fromkeys(("as_int", "as_bool", "as_string", "as_ints", "as_bools"), _as_it_is),
    "as_float": float,  # "-Infinity" is a text
    "as_floats": lambda value: [float(number) for number in value],
    "as_scalar_type": DTYPES.__getitem__,
    "as_memory_format": MEMORY_FORMATS.__getitem__,
    "as_layout": {STRIDED: torch.strided}.__getitem__,
}


def _of(value: Any) -> list[str]:
    """Return the names in an argument."""
    if isinstance(value, Name):
        return [value.of]
    return [name for item in value for name in _of(item)] if isinstance(value, list) else []
