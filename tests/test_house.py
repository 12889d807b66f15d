"""The contract of the house: import arrows, pure modules, forbidden calls, sizes, paths."""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("manifests", "synth", "train", "features")
SKIPPED = {".venv", "build", "dist", "__pycache__", ".git", "node_modules"}
TEXT_SUFFIXES = {".py", ".md", ".toml", ".yaml", ".yml", ".cfg", ".ini", ".sh", ".html", ".json"}

# Modules of mathematics: the standard library's arithmetic, NumPy, cv2 and one another.
PURE_SYNTH = (
    *("labels", "freeze", "mixup", "cutmix", "boundary", "augment", "paste", "tree", "views"),
    *("annotated", "candidates", "kinds", "pairs", "plan", "recipe", "streams"),
)
PURE = {f"synth/{name}.py" for name in PURE_SYNTH} | {
    "manifests/records.py",
    "manifests/timegrid.py",
    "features/pictures/colours.py",
    "features/pictures/equivariance.py",
    "features/extraction/windows.py",
    "features/probing/postprocessing.py",
    "features/probing/segment_nms.py",
    "features/heads/boundary_targets.py",
}
PURE_FOLDERS = ("features/metrics", "train/objectives")
SHELL_STDLIB = {
    *("os", "io", "shutil", "tempfile", "glob", "subprocess", "socket", "urllib", "http"),
    *("time", "datetime", "random", "secrets", "threading", "multiprocessing", "asyncio"),
    *("signal", "ctypes", "sqlite3", "tarfile", "zipfile", "logging", "importlib"),
}
# `recipe.py` is built by the floor above, which reads the TOML file; objectives take records.
PURE_MAY_IMPORT = {
    ("synth/recipe.py", "manifests"): {"UsageError", "build_record", "read_recipe_table"},
    ("train/objectives/", "manifests"): {"ShardError"},
    ("train/objectives/", "synth"): {
        *("BOUNDARY_CLASSES", "LabelTrack", "ShardSample", "constant_track"),
    },
    ("train/objectives/manifold.py", "synth"): {
        *("Overlap", "aligned_index", "column_mask", "draw_freeze", "draw_overlap"),
        *("frozen_index", "mixing_weights", "round_half_up", "view_slides", "window_masks"),
    },
}

FORBIDDEN_MODULES = {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "imp"}
FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_ATTRIBUTES = {("os", "system"), ("os", "popen")}
LONGEST_FUNCTION = 60
LONGEST_MODULE = 400
LONGEST_LIST = 640  # a test file lists cases
LONGEST_DOOR = 960  # cli.py declares every option of three commands


def first_party() -> list[str]:
    """Return every Python file of the project, as a path from its root."""
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
    return sorted(
        path.as_posix()
        for path in found
        if not SKIPPED & set(path.parts) and not path.parts[0].endswith(".egg-info")
    )


FILES = first_party()
HOUSE = [file for file in FILES if file.split("/")[0] in FLOORS or file == "cli.py"]


@cache
def source(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


@cache
def tree(file: str) -> ast.Module:
    return ast.parse(source(file), file)


def is_pure(file: str) -> bool:
    return file in PURE or file.startswith(tuple(folder + "/" for folder in PURE_FOLDERS))


@cache
def exported(floor: str) -> frozenset[str]:
    """Return the names in a floor's `__all__`."""
    for node in tree(f"{floor}/__init__.py").body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets
        ):
            return frozenset(ast.literal_eval(node.value))
    return frozenset()


def package_of(file: str) -> list[str]:
    return file.split("/")[:-1]


@cache
def nodes(module: ast.Module) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(module))


@cache
def within_functions(module: ast.Module) -> frozenset[int]:
    """Return the ids of the imports that stand inside a function."""
    return frozenset(
        id(node)
        for function in nodes(module)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    )


def imports(file: str) -> Iterator[tuple[ast.stmt, str, list[str], bool]]:
    """Yield each import as (node, absolute module, imported names, inside a function)."""
    inner = within_functions(tree(file))
    for node in nodes(tree(file)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name, [], id(node) in inner
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                base = package_of(file)[: len(package_of(file)) - node.level + 1]
                module = ".".join([*base, *filter(None, [module])])
            yield node, module, [alias.name for alias in node.names], id(node) in inner


def check_arrows(file: str) -> Iterator[str]:
    """Fail on an arrow down, a private door, an import in a function, an escape of the package."""
    own = file.split("/")[0]
    for node, module, names, in_function in imports(file):
        where = f"{file}:{node.lineno}"
        if isinstance(node, ast.ImportFrom) and node.level > len(package_of(file)):
            yield f"{where}: relative import beyond the package"
            continue
        floor = module.split(".")[0]
        if floor == "cli":
            yield f"{where}: nothing imports the door"
        if floor not in FLOORS:
            continue
        if in_function and file != "cli.py":
            yield f"{where}: first-party import of {module} inside a function"
        if floor == own:
            if not (isinstance(node, ast.ImportFrom) and node.level):
                yield f"{where}: import siblings relatively, got {module}"
            continue
        if own in FLOORS and FLOORS.index(floor) > FLOORS.index(own):
            yield f"{where}: {own} must not import the lower floor {floor}"
        if not isinstance(node, ast.ImportFrom) or module != floor:
            yield f"{where}: import as `from {floor} import NAME`, got {module}"
            continue
        for name in names:
            if name not in exported(floor):
                yield f"{where}: {name!r} is not in {floor}.__all__"


def _granted(file: str, floor: str) -> set[str]:
    """Return the names of a floor above that a module of mathematics may import."""
    grants = PURE_MAY_IMPORT.items()
    return set().union(*(g for (f, of), g in grants if file.startswith(f) and of == floor))


def check_purity(file: str) -> Iterator[str]:
    """Fail where a module of mathematics reaches for a shell module or another package."""
    allowed = {"numpy", "cv2"} | ({"torch"} if file.startswith("train/") else set())
    for node, module, names, _ in imports(file) if is_pure(file) else ():
        where = f"{file}:{node.lineno}"
        top = module.split(".")[0]
        if isinstance(node, ast.ImportFrom) and node.level:
            candidates = [f"{module.replace('.', '/')}.py"]
            candidates += [f"{module.replace('.', '/')}/{name}.py" for name in names]
            known = [candidate for candidate in candidates if candidate in FILES]
            for sibling in known:
                if not is_pure(sibling):
                    yield f"{where}: a module of mathematics imports the shell {sibling}"
        elif top in FLOORS:
            for name in set(names or [module]) - _granted(file, top):
                yield f"{where}: a module of mathematics imports {name} of {module}"
        elif top in sys.stdlib_module_names:
            if top in SHELL_STDLIB:
                yield f"{where}: a module of mathematics imports {module}"
        elif top not in allowed:
            yield f"{where}: a module of mathematics imports {module}"
    for node in nodes(tree(file)) if is_pure(file) else ():
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "open"
        ):
            yield f"{file}:{node.lineno}: a module of mathematics opens a file"


def _name(node: ast.expr) -> tuple[str, ...]:
    """Return a dotted name as its parts, or nothing."""
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute) and _name(node.value):
        return (*_name(node.value), node.attr)
    return ()


def _is(value: ast.expr | None, constant: object) -> bool:
    return isinstance(value, ast.Constant) and value.value is constant


def check_calls(file: str) -> Iterator[str]:
    """Fail on calls that run or unpickle what a file says."""
    for node, module, names, _ in imports(file):
        # torch.load raises pickle's UnpicklingError also where it reads weights only.
        if module.split(".")[0] in FORBIDDEN_MODULES and names != ["UnpicklingError"]:
            yield f"{file}:{node.lineno}: imports {module}"
    for node in nodes(tree(file)):
        if not isinstance(node, ast.Call):
            continue
        where, name = f"{file}:{node.lineno}", _name(node.func)
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if len(name) == 1 and name[0] in FORBIDDEN_NAMES:
            yield f"{where}: calls {name[0]}"
        if name[-2:] in FORBIDDEN_ATTRIBUTES:
            yield f"{where}: calls {'.'.join(name)}"
        if "shell" in given and not _is(given["shell"], False):
            yield f"{where}: shell=True"
        if "allow_pickle" in given and not _is(given["allow_pickle"], False):
            yield f"{where}: allow_pickle=True"
        if name == ("torch", "load") and not _is(given.get("weights_only"), True):
            yield f"{where}: torch.load without weights_only=True"
        if name[:2] in {("np", "random"), ("random",)} and name[-1] in {"seed", "rand", "randint"}:
            yield f"{where}: the global random generator"


def check_handlers(file: str) -> Iterator[str]:
    """Fail on a bare `except`, and on a blind one that does not raise again."""
    for node in nodes(tree(file)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        if node.type is None:
            yield f"{file}:{node.lineno}: bare except"
            continue
        types = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        blind = {_name(kind)[-1:] for kind in types} & {("Exception",), ("BaseException",)}
        if blind and not any(isinstance(child, ast.Raise) for child in ast.walk(node)):
            yield f"{file}:{node.lineno}: blind except without a raise"


def check_sizes(file: str) -> Iterator[str]:
    """Fail on long functions and modules, and on a module that is a drawer."""
    lines = source(file).count("\n")
    most = LONGEST_LIST if file.startswith("tests/") else LONGEST_MODULE
    most = LONGEST_DOOR if file == "cli.py" else most
    if lines > most:
        yield f"{file}: {lines} lines, at most {most}"
    if Path(file).stem in {"utils", "util", "helpers", "common", "misc"}:
        yield f"{file}: no module of odds and ends"
    for node in nodes(tree(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if ast.get_docstring(node):
                length -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
            if length > LONGEST_FUNCTION:
                yield f"{file}:{node.lineno}: {node.name} has {length} lines"


def check_docstrings(file: str) -> Iterator[str]:
    """Fail on a module, or a public function or class of the house, without a docstring."""
    if not ast.get_docstring(tree(file)):
        yield f"{file}: no docstring"
    if file not in HOUSE:
        return
    classes = [node for node in tree(file).body if isinstance(node, ast.ClassDef)]
    scopes = [tree(file), *(node for node in classes if not node.name.startswith("_"))]
    for node in (child for scope in scopes for child in scope.body):
        if (
            isinstance(node, ast.FunctionDef | ast.ClassDef)
            and not node.name.startswith("_")
            and not ast.get_docstring(node)
        ):
            yield f"{file}:{node.lineno}: {node.name} has no docstring"


CHECKS: list[Callable[[str], Iterator[str]]] = [
    check_purity,
    check_calls,
    check_handlers,
    check_sizes,
    check_docstrings,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_file_keeps_the_rules(check: Callable[[str], Iterator[str]]) -> None:
    violations = [violation for file in FILES for violation in check(file)]
    assert not violations, "\n" + "\n".join(violations)


def test_imports_point_up() -> None:
    violations = [violation for file in HOUSE for violation in check_arrows(file)]
    assert not violations, "\n" + "\n".join(violations)


def test_no_module_imports_itself_in_a_circle() -> None:
    arrows: dict[str, set[str]] = {}
    for file in HOUSE:
        targets = set()
        for _, module, names, in_function in imports(file):
            base = module.replace(".", "/")
            places = [f"{base}.py", *(f"{base}/{name}.py" for name in names)]
            modules = [place for place in places if place in FILES]
            if not in_function:
                targets |= set(modules or [f"{base}/__init__.py"]) & set(FILES)
        arrows[file] = targets - {file}
    finished: set[str] = set()

    def walk(file: str, trail: tuple[str, ...]) -> None:
        assert file not in trail, " -> ".join([*trail[trail.index(file) :], file])
        if file not in finished:
            for target in sorted(arrows.get(file, ())):
                walk(target, (*trail, file))
            finished.add(file)

    for file in arrows:
        walk(file, ())


def text_files() -> list[Path]:
    found = (path for path in ROOT.rglob("*") if path.suffix in TEXT_SUFFIXES and path.is_file())
    return [
        path
        for path in found
        if not SKIPPED & set(path.relative_to(ROOT).parts)
        and not any(part.startswith(".") for part in path.relative_to(ROOT).parts[:-1])
    ]


def test_only_tests_name_the_shared_folder() -> None:
    named = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in text_files()
        if path.relative_to(ROOT).parts[0] != "tests"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if "../shared" in line
    ]
    assert not named, named


def test_no_file_names_a_place_on_one_machine() -> None:
    pattern = re.compile(r"(?<![\w.~/:-])/(?:work|home|root|Users|mnt|opt|tmp)/")
    this = Path(__file__).name
    named = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in text_files()
        if path.name != this
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert not named, "\n" + "\n".join(named)


def test_the_house_stands() -> None:
    # Guard against a check that passes because it looks at nothing.
    assert {"cli.py", *(f"{floor}/__init__.py" for floor in FLOORS)} <= set(HOUSE)
    assert set(FILES) >= PURE
    assert all(exported(floor) for floor in ("manifests", "synth"))
