"""What a notebook's parameters may be: the one place where they are checked.

A notebook declares them in its cell tagged ``parameters``, one typed literal a line:

    lr: float = 1e-5  # learning rate (paper, section 5.1)

papermill only logs a parameter that the notebook does not have, and never looks at types, so a
misspelt learning rate would train for a day. Here it is an error before anything runs.
"""

import ast
import inspect
import json
import reprlib
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from sgvl.common.errors import InputError, nearest
from sgvl.common.paths import NOTEBOOKS
from sgvl.common.strict_yaml import Loader

_PLAIN = {"int": int, "float": float, "str": str, "bool": bool, "dict": dict}


def read_notebook(path: Path) -> dict:
    """A notebook's JSON. Raises InputError if there is no such notebook or it cannot be read."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path}: not a notebook ({error})") from None
    match notebook:
        case {"metadata": dict(), "cells": list()}:
            return notebook
    raise InputError(f"{path}: not a notebook of format 4 (it has no cells)")


def declared(notebook: Path) -> type[BaseModel]:
    """The parameters that a notebook declares, as a closed and strictly typed pydantic model.

    Raises InputError if no cell is tagged ``parameters`` and, naming each line, if that cell holds
    anything but typed literals.
    """
    cells = read_notebook(notebook)["cells"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    if not tagged:
        raise InputError(f"{notebook.name}: no cell is tagged 'parameters'")
    where = f"{notebook.name}, parameters cell"
    try:
        body = ast.parse("".join(tagged[0]["source"])).body
    except SyntaxError as error:
        raise InputError(f"{where}, line {error.lineno}: {error.msg}") from None

    fields, problems = {}, []
    for line in body:
        try:
            name, annotation, default = _declaration(line)
        except (ValueError, TypeError):
            problems.append(
                f"{where}, line {line.lineno}: `{ast.unparse(line)}` is not a typed literal, "
                "such as `lr: float = 1e-5`"
            )
            continue
        if name in fields:
            problems.append(f"{where}, line {line.lineno}: {name} is declared twice")
        fields[name] = (annotation, default)
    if problems:
        raise InputError(problems)
    model = create_model(
        "Parameters",
        __config__=ConfigDict(
            strict=True, extra="forbid", validate_default=True, allow_inf_nan=False
        ),
        **fields,
    )
    _checked(model, {}, where)  # a default keeps to its own type, too
    return model


def validate(notebook: Path, values: dict, where: str) -> dict[str, Any]:
    """All parameters of a notebook: its defaults, overridden by ``values``.

    Raises InputError that lists every problem, each opening with ``where``, the values' source.
    """
    return _checked(declared(notebook), values, where)


def check(name: str, namespace: dict) -> dict[str, Any]:
    """Check a notebook from inside: its first line after the parameters cell.

        settings = check("05_benchmark", globals())

    Covers plain ``papermill -f``, whose unknown parameters arrive as ordinary variables, and a
    reader's own edits. Returns the settings. Raises InputError that lists every problem.
    """
    model = declared(NOTEBOOKS / f"{name}.ipynb")
    unset = [field for field in model.model_fields if field not in namespace]
    if unset:
        raise InputError(f"{name}: run the parameters cell first; not set: {', '.join(unset)}")
    names = [*model.model_fields, *_injected(namespace)]
    return _checked(model, {field: namespace.get(field) for field in names}, name)


def load_yaml(path: Path) -> dict:
    """A parameter file. An empty one means: all defaults.

    Raises InputError for what YAML allows and a parameter file has no use for: repeated keys,
    aliases, tags, anything but one mapping.
    """
    try:
        with path.open("rb") as file:
            values = yaml.load(file, Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1
        raise InputError(f"{path}, line {line}: {error.problem}") from None
    except (yaml.YAMLError, RecursionError, OSError) as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(values, dict | None):
        raise InputError(f"{path}: expected `name: value` lines, got {reprlib.repr(values)}")
    return values or {}


def _declaration(line: ast.stmt) -> tuple[str, Any, Any]:
    match line:
        case ast.AnnAssign(ast.Name(id=name), annotation, ast.expr() as value):
            return name, _type(annotation), ast.literal_eval(value)
    raise ValueError


def _type(node: ast.expr) -> Any:
    """The type that an annotation spells, without evaluating it."""
    match node:
        case ast.Name(id=name) if name in _PLAIN:
            return _PLAIN[name]
        case ast.BinOp(op=ast.BitOr(), left=left, right=ast.Constant(value=None)):
            return _type(left) | None
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            return list[_type(item)]
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[key, value])):
            return dict[_type(key), _type(value)]
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            return Literal[ast.literal_eval(choices)]
    raise ValueError


def _injected(namespace: dict) -> list[str]:
    """The names that papermill's own cell has set; none outside papermill.

    IPython keeps every executed cell in ``In``; only the newest injected one counts, so that a
    reader who mends it need not restart the kernel.
    """
    for source in reversed(namespace.get("In", [])):
        if source.startswith("# Parameters\n"):
            return [
                target.id
                for line in ast.parse(source).body
                if isinstance(line, ast.Assign)
                for target in line.targets
                if isinstance(target, ast.Name)
            ]
    return []


def _checked(model: type[BaseModel], values: dict, where: str) -> dict[str, Any]:
    try:
        return model.model_validate(values).model_dump()
    except ValidationError as error:
        raise InputError(_explain(model, problem, where) for problem in error.errors()) from None


def _explain(model: type[BaseModel], problem: dict, where: str) -> str:
    key = str(problem["loc"][0])
    path = ".".join(map(str, problem["loc"]))
    got = reprlib.repr(problem["input"])
    if key not in model.model_fields:
        return f"{where}: {path}: no such parameter; {nearest(key, model.model_fields)}"
    expected = inspect.formatannotation(model.model_fields[key].annotation)
    if problem["type"] == "finite_number":
        expected = f"finite {expected}"
    if problem["type"] in {"int_type", "float_type"} and isinstance(problem["input"], str):
        with suppress(ValueError):  # it may not look like a number either
            number = yaml.safe_dump(float(problem["input"])).split()[0]
            got = f"the text {got}"
            expected += f": YAML takes 1e-5 and '1' for text; write {number.removesuffix('.0')}"
    return f"{where}: {path}: got {got}, expected {expected}"
