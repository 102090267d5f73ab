"""The scoring functions of an installed lmms-eval, loaded without the models it drags in.

Found where lmms-eval is installed, or where LMMS_EVAL_PATH names the folder that holds the package
(an unpacked wheel). What it imports besides the standard library, numpy, pandas and PyYAML is
replaced by empty modules; nothing of it is copied here.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import types
from contextlib import contextmanager
from pathlib import Path

import numpy  # noqa: F401  (loaded before the empty modules stand in its imports' way)
import pandas  # noqa: F401
import yaml  # noqa: F401

from vtc.evaluate.texts import levenshtein

_EMPTY = (
    "loguru", "requests", "sacrebleu", "Levenshtein", "sklearn", "tqdm", "openai",
    "lmms_eval.api.registry", "lmms_eval.api.instance", "lmms_eval.api.filter",
    "lmms_eval.llm_judge", "lmms_eval.verifiers", "lmms_eval.filters",
    "lmms_eval.tasks._task_utils.file_utils",
)  # fmt: skip


def package() -> Path | None:
    """The folder of the package lmms_eval, None where it is not at hand."""
    named = os.environ.get("LMMS_EVAL_PATH")
    if named:
        return Path(named) / "lmms_eval"
    try:
        found = importlib.util.find_spec("lmms_eval")
    except (ImportError, ValueError):
        return None
    return Path(found.origin).parent if found and found.origin else None


class _Anything:
    """Stands for whatever a function's file imports but its scoring does not use."""

    def __init__(self, *args, **kwargs):
        pass

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()

    def __call__(self, *args, **kwargs):
        # As a decorator with arguments it must give the function back.
        if len(args) == 1 and callable(args[0]) and not kwargs:
            return args[0]
        return _Anything()


class _Base:
    def __init__(self, *args, **kwargs):
        pass


class _Empty(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "distance":
            return levenshtein
        return _Base if name[:1].isupper() else _Anything()


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if any(name == stub or name.startswith(f"{stub}.") for stub in _EMPTY):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Empty(spec.name)

    def exec_module(self, module):
        module.__path__ = []


@contextmanager
def empty_modules():
    """While this holds, functions of lmms-eval that import more of it when called find it."""
    root = package()
    assert root is not None
    before = dict(sys.modules)
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    for name in [n for n in sys.modules if any(n == s or n.startswith(f"{s}.") for s in _EMPTY)]:
        del sys.modules[name]
    for name, folder in (
        ("lmms_eval", root),
        ("lmms_eval.tasks", root / "tasks"),
        ("lmms_eval.api", root / "api"),
    ):
        module = types.ModuleType(name)
        module.__path__ = [str(folder)]  # type: ignore[attr-defined]
        sys.modules[name] = module
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in set(sys.modules) - set(before):
            if name.split(".")[0] in {"lmms_eval", *(stub.split(".")[0] for stub in _EMPTY)}:
                del sys.modules[name]
        sys.modules.update(before)


def load(*names: str) -> list[types.ModuleType]:
    """Modules of lmms_eval by their names below it, such as tasks.mme.utils."""
    with empty_modules():
        return [importlib.import_module(f"lmms_eval.{name}") for name in names]
