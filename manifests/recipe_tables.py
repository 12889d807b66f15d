"""Turn a TOML table into a frozen dataclass; every wrong key or type is one sentence."""

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from .errors import UsageError

Record = TypeVar("Record")
SECTIONS = ("synth", "train")


def read_recipe_table(path: Path | str, section: str) -> dict[str, Any]:
    """Read the table `[section]` of a recipe.

    One file may hold the recipe of the shards (`[synth]`) and of the training on them (`[train]`);
    any other table stands alone.
    A bare name that is no file here is looked up among the recipes that come with the package.

    Raises:
        UsageError: No such file, not TOML, an unknown table, or no `[section]` in it.
    """
    try:
        tables = tomllib.loads(_read_text(Path(path)))
    except FileNotFoundError as err:
        raise UsageError(f"no such recipe: {str(path)!r}{_say_nearest(path)}") from err
    except UnicodeDecodeError as err:
        raise UsageError(f"a recipe must be a text file, got {str(path)!r}") from err
    except RecursionError as err:
        raise UsageError(f"the recipe is nested too deep ({str(path)!r})") from err
    except (ValueError, OSError) as err:  # ValueError: not TOML, or a number of 5,000 digits
        raise UsageError(f"the recipe is not valid TOML: {err} ({str(path)!r})") from err
    known = SECTIONS if section in SECTIONS else (section,)
    for name in tables:
        if name not in known:
            raise UsageError(_unknown(name, known, "at the top level", path))
    if not isinstance(tables.get(section), dict):
        raise UsageError(f"the recipe has no table [{section}] ({str(path)!r})")
    return tables[section]


def _say_nearest(path: Path | str) -> str:
    """Name the shipped recipe that may be meant, if one is near."""
    shipped = [entry.name for entry in files("manifests.recipes").iterdir()]
    near = difflib.get_close_matches(Path(path).name, shipped, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _read_text(path: Path) -> str:
    shipped = files("manifests.recipes") / path.name
    if not path.exists() and path.parent == Path() and shipped.is_file():
        return shipped.read_text(encoding="utf-8")
    return path.read_text(encoding="utf-8")


def build_record(
    cls: type[Record], table: Mapping[str, Any], section: str, path: Path | str
) -> Record:
    """Build the dataclass `cls` from `table`; nested dataclasses are nested tables.

    A field annotated `tuple[int, int]` takes a list of two whole numbers, `float` also takes a
    whole number, `dict[str, float]` a table. `cls.__post_init__` raises ValueError for values out
    of range.

    Raises:
        UsageError: An unknown key (the nearest known one is named), a wrong type, a missing key, a
            value out of range.
    """
    hints = typing.get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    values = {}
    for key, value in table.items():
        if key not in known:
            raise UsageError(_unknown(key, known, f"in [{section}]", path))
        values[key] = _convert(hints[key], value, f"{section}.{key}", path)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if required and field.name not in values:
            raise UsageError(f"key {field.name!r} is missing in [{section}] (recipe {str(path)!r})")
    try:
        return cls(**values)
    except ValueError as err:
        raise UsageError(f"{err} (recipe {str(path)!r}, [{section}])") from err


def _unknown(key: str, known: typing.Sequence[str], where: str, path: Path | str) -> str:
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    hint = f"did you mean {nearest[0]!r}?" if nearest else "which has no keys here"
    return f"unknown key {key!r} {where}, {hint} (recipe {str(path)!r})"


def _convert(hint: Any, value: Any, name: str, path: Path | str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise UsageError(_ill_typed(name, "a table", value, path))
        return build_record(hint, value, name, path)
    if not _fits(hint, value):
        raise UsageError(_ill_typed(name, _say(hint), value, path))
    return _cast(hint, value)


def _ill_typed(name: str, wanted: str, value: Any, path: Path | str) -> str:
    return f"{name} must be {wanted}, got {value!r} (recipe {str(path)!r})"


def _fits(hint: Any, value: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(option, value) for option in inner)
    if origin is typing.Literal:
        return value in inner and type(value) in {type(option) for option in inner}
    if origin is tuple:
        if not isinstance(value, list):
            return False
        if len(inner) == 2 and inner[1] is Ellipsis:
            return all(_fits(inner[0], item) for item in value)
        return len(value) == len(inner) and all(map(_fits, inner, value))
    if origin is dict:
        return isinstance(value, dict) and all(_fits(inner[1], item) for item in value.values())
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is Any:
        return True
    return isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool)


def _cast(hint: Any, value: Any) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _cast(next(option for option in inner if _fits(option, value)), value)
    if origin is tuple:
        options = [inner[0]] * len(value) if inner[1:] == (Ellipsis,) else inner
        return tuple(map(_cast, options, value))
    if origin is dict:
        return {key: _cast(inner[1], item) for key, item in value.items()}
    return float(value) if hint is float else value


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}


def _say(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_say(option) for option in inner if option is not type(None))
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(option) for option in inner)
    if origin is tuple:
        if inner[1:] == (Ellipsis,):
            return f"a list, each {_say(inner[0])}"
        return "a list of " + " and ".join(_say(option) for option in inner)
    if origin is dict:
        return f"a table, each value {_say(inner[1])}"
    return _WORDS.get(hint, "a table")
