"""Check the parameters of notebooks: names and types.

A notebook declares its parameters in the cell tagged ``parameters``, one typed literal a line:

    lr: float = 1e-5  # learning rate (paper, section 5.1)

papermill only logs a parameter that the notebook does not have, and never checks types, so a
misspelt learning rate would train for a day with the default. Here it is an error before anything
runs.
"""

import ast
import json
import math
import re
import reprlib
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from sgvl.common.errors import InputError, nearest, plain_warnings, raise_any
from sgvl.common.paths import NOTEBOOKS, need_checkout
from sgvl.common.strict_yaml import Loader
from sgvl.common.types import mismatch

HALF = re.compile("[\ud800-\udfff]")  # a surrogate without its other half
LEAST = {"resamples": 100}  # whole numbers that may not be 0; fewer resamples give no interval
MOST = 2**32 - 1  # the largest seed that numpy takes
COUNT = Annotated[int, Field(ge=0, le=MOST)]  # or a seed
_PLAIN = {"int": COUNT, "float": float, "str": str, "bool": bool, "dict": dict}


def read_notebook(path: Path) -> dict:
    """Read a notebook's JSON. Raises InputError if the file is missing or is no notebook."""
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
    """Return a notebook's parameters as a strictly typed pydantic model that allows no others.

    Raises
    ------
    InputError : no cell is tagged ``parameters``, or that cell holds anything but typed literals;
        each such line is named
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
        if annotation is COUNT and name in LEAST:
            annotation = Annotated[int, Field(ge=LEAST[name], le=MOST)]
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
    checked(model, {}, where)  # the defaults must fit their own types, too
    return model


def validate(notebook: Path, values: dict, where: str) -> dict[str, Any]:
    """Return all parameters of a notebook: its defaults, overridden by ``values``.

    Raises InputError with every problem; each starts with ``where``, the source of the values.
    """
    return checked(declared(notebook), values, where)


def check(name: str, namespace: dict) -> None:
    """Check a notebook's parameters from inside, in the first line after the parameters cell:

        check("05_benchmark", globals())

    This covers plain ``papermill -f``, whose unknown parameters arrive as ordinary variables, and
    a reader's own edits. Warnings are then printed as their text alone.

    Raises InputError with every problem.
    """
    plain_warnings()
    need_checkout()
    model = declared(NOTEBOOKS / f"{name}.ipynb")
    unset = [field for field in model.model_fields if field not in namespace]
    if unset:
        raise InputError(f"{name}: run the parameters cell first; not set: {', '.join(unset)}")
    names = [*model.model_fields, *_injected(namespace)]
    values = checked(model, {field: namespace.get(field) for field in names}, name)
    raise_any(value_problems(read_notebook(NOTEBOOKS / f"{name}.ipynb"), values, name))


def value_problems(notebook: dict, values: dict, where: str) -> list[str]:
    """Call the checks that a notebook's metadata declare, and list the problems that they raise."""
    problems = []
    for function, names in notebook["metadata"].get("sgvl", {}).get("checks", {}).items():
        try:
            resolve_name(function)(*(values[name] for name in names))
        except InputError as error:
            problems += [f"{where}: {problem}" for problem in error.problems]
    return problems


def load_yaml(path: Path) -> dict:
    """Read a parameter file; an empty file gives an empty dict, that is, all defaults.

    Raises InputError if the file is anything but one plain mapping: repeated keys, aliases and tags
    are errors.
    """
    try:
        with path.open("rb") as file:
            values = yaml.load(file, Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1
        broken = isinstance(error, yaml.scanner.ScannerError | yaml.parser.ParserError)
        raise InputError(
            f"{path}, line {line}: {'not valid YAML: ' * broken}{error.problem}"
        ) from None
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
    """Return the type that an annotation spells, without evaluating it."""
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
    """List the names that papermill's injected cell sets; none outside papermill.

    IPython keeps every executed cell in ``In``. Only the newest injected one counts, so that a
    reader who corrects it need not restart the kernel.
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


def checked(model: type[BaseModel], values: dict, where: str) -> dict[str, Any]:
    """Return all values of a model. Raises InputError with every problem, after ``where``."""
    problems = dict(_not_plain(values))
    try:
        whole = model.model_validate(values).model_dump()
    except ValidationError as error:
        problems |= dict(_explain(model, problem) for problem in error.errors())
    if problems:
        raise InputError(f"{where}: {path}: {problem}" for path, problem in problems.items())
    return whole


def _not_plain(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the place and the fault of what JSON, and so a record of this run, cannot hold."""
    match value:
        case dict():
            for key, part in value.items():
                if isinstance(key, str) and not HALF.search(key):
                    yield from _not_plain(part, f"{path}.{key}".removeprefix("."))
                else:
                    yield f"{path}.{key!r}".removeprefix("."), "write the name as text, in quotes"
        case list():
            for index, part in enumerate(value):
                yield from _not_plain(part, f"{path}.{index}")
        case float() if not math.isfinite(value):
            yield path, f"got {value}, expected a finite number"
        case str() if HALF.search(value):
            yield path, f"got {reprlib.repr(value)}, which holds half a character"
        case None | bool() | int() | float() | str():
            pass
        case _:
            yield path, f"got {reprlib.repr(value)}; write text in quotes"


def _explain(model: type[BaseModel], problem: dict) -> tuple[str, str]:
    """Return the place and the fault that pydantic found."""
    key = str(problem["loc"][0])
    path = ".".join(map(str, problem["loc"]))
    if problem["type"] == "missing":
        return path, "is missing"
    if key not in model.model_fields:
        return path, f"no such parameter; {nearest(key, model.model_fields)}"
    if limit := {"greater_than_equal": "more", "less_than_equal": "less"}.get(problem["type"]):
        (bound,) = problem["ctx"].values()
        return path, f"got {problem['input']}, expected {bound} or {limit}"
    return path, mismatch(problem["input"], model.model_fields[key].annotation)
