"""The API reference: what docstrings refer to exists, and a page comes out for every module."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import quant

PACKAGE = Path(quant.__file__).parent
MAKEFILE = PACKAGE.parent / "Makefile"
NO_API = {"suites", "project_template", "extractor.py", "sb3_env.py", "__main__.py"}
"""Tests, what is copied, and what imports PyTorch: as in the Makefile."""
ROLE = re.compile(r":(?:mod|class|func|data|meth|attr|exc):`~?([\w.]+)`")
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if not NO_API & set(path.relative_to(PACKAGE).parts))


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _docstrings(path: Path) -> Iterator[str]:
    """Of the module, its classes and functions, and the strings that stand below a name."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


def _found(name: str, module: Any) -> bool:
    """A name of the module, of one of its classes, or a full one."""
    spaces = [module, *(value for value in vars(module).values() if isinstance(value, type))]
    if any(_reaches(space, name.split(".")) for space in spaces):
        return True
    parts = name.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        return _reaches(found, parts[split:])
    return False


def _reaches(space: Any, names: list[str]) -> bool:
    for name in names:
        fields = getattr(space, "__dataclass_fields__", {})
        if not hasattr(space, name) and name not in fields:
            return False
        space = getattr(space, name, None)
    return True


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_what_docstrings_refer_to_exists(path: Path) -> None:
    names = {name for text in _docstrings(path) for name in ROLE.findall(text)}
    if names:
        module = importlib.import_module(_name(path))
        assert not [name for name in sorted(names) if not _found(name, module)]


def test_every_module_has_its_page(tmp_path: Path) -> None:
    rule = MAKEFILE.read_text("utf-8").replace("\\\n", "")
    recipe = next(line for line in rule.splitlines() if "/pdoc " in line)
    command = recipe.strip().replace("$(BIN)", str(Path(sys.executable).parent)).replace("build/api", str(tmp_path))
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    for path in MODULES:
        package = importlib.import_module(_name(path.parent / "__init__.py"))
        # What a package gives under its own name stands on its own page.
        if hasattr(package, "__all__") and path.name != "__init__.py":
            continue
        page = tmp_path / (_name(path).replace(".", "/") + ".html")
        assert page.is_file(), f"{page}\n{done.stderr}"
        assert not ROLE.search(page.read_text("utf-8")), f"a role that pdoc does not know, in {page.name}"
