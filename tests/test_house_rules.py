"""The checks of `test_house.py` fail where they should: one small offence each."""

import ast

import pytest
import test_house as house

OFFENCES = [
    (house.check_arrows, "synth/made.py", "from train import X", "lower floor train"),
    (house.check_arrows, "synth/made.py", "from manifests.errors import UsageError", "import as"),
    (house.check_arrows, "synth/made.py", "from manifests import nothing_there", "not in"),
    (house.check_arrows, "synth/made.py", "import manifests", "import as"),
    (house.check_arrows, "synth/made.py", "from synth.mixup import blend", "relatively"),
    (house.check_arrows, "synth/made.py", "from ... import train", "beyond the package"),
    (house.check_arrows, "synth/made.py", "import cli", "the door"),
    (house.check_arrows, "synth/made.py", "def f():\n    from .x import y", "inside a function"),
    (house.check_purity, "synth/mixup.py", "import os", "imports os"),
    (house.check_purity, "synth/mixup.py", "import torch", "imports torch"),
    (house.check_purity, "synth/mixup.py", "from manifests import UsageError", "UsageError of"),
    (house.check_purity, "synth/mixup.py", "from .codecs import BLOCK", "shell synth/codecs.py"),
    (house.check_purity, "synth/mixup.py", "x = open('f')", "opens a file"),
    (house.check_calls, "train/made.py", "import pickle", "imports pickle"),
    (house.check_calls, "train/made.py", "eval('1')", "calls eval"),
    (house.check_calls, "train/made.py", "os.system('x')", "os.system"),
    (house.check_calls, "train/made.py", "run(x, shell=True)", "shell=True"),
    (house.check_calls, "train/made.py", "torch.load(f)", "weights_only"),
    (house.check_calls, "train/made.py", "torch.load(f, weights_only=False)", "weights_only"),
    (house.check_calls, "train/made.py", "np.load(f, allow_pickle=True)", "allow_pickle"),
    (house.check_handlers, "train/made.py", "try:\n    x\nexcept:\n    pass", "bare"),
    (house.check_handlers, "train/made.py", "try:\n    x\nexcept Exception:\n    pass", "blind"),
    (
        house.check_handlers,
        "train/made.py",
        "try:\n    x\nexcept (A, BaseException):\n    y",
        "bli",
    ),
    (house.check_sizes, "train/made.py", "def f():\n" + "    x\n" * 60, "61 lines"),
    (house.check_sizes, "train/made.py", "x\n" * 401, "401 lines"),
    (house.check_sizes, "train/utils.py", "x\n", "odds and ends"),
    (house.check_docstrings, "train/made.py", "x = 1", "no docstring"),
]
HARMLESS = """
from manifests import UsageError, VideoError
from .mixup import blend

def f(model):
    model.eval()
    torch.load(path, weights_only=True)
    try:
        run(x, shell=False)
    except BaseException:
        clean()
        raise
"""


def put(monkeypatch: pytest.MonkeyPatch, file: str, text: str) -> None:
    real_tree, real_source, parsed = house.tree, house.source, ast.parse(text)
    monkeypatch.setattr(house, "tree", lambda f: parsed if f == file else real_tree(f))
    monkeypatch.setattr(house, "source", lambda f: text if f == file else real_source(f))


@pytest.mark.parametrize(("check", "file", "text", "words"), OFFENCES)
def test_offence_is_found(
    monkeypatch: pytest.MonkeyPatch, check, file: str, text: str, words: str
) -> None:
    put(monkeypatch, file, text)
    assert any(words in violation for violation in check(file)), list(check(file))


@pytest.mark.parametrize(
    "check", [house.check_arrows, house.check_calls, house.check_handlers, house.check_sizes]
)
def test_harmless_code_passes(monkeypatch: pytest.MonkeyPatch, check) -> None:
    put(monkeypatch, "synth/made.py", HARMLESS)
    assert list(check("synth/made.py")) == []
