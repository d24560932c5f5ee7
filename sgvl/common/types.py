"""Checks of values against annotated types: text is no number, and numbers are finite."""

import inspect
import json
import math
import os
import re
import reprlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from sgvl.common.errors import nearest

_CONFIG = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)

# Options of models, checked before one is loaded. Whether the device is there shows only then.
Dtype = Literal["float32", "bfloat16", "float16", "float64", "auto"]
Device = Annotated[
    str, Field(pattern=r"^(cpu|cuda|mps|xpu)(:\d+)?$", description="cpu, cuda or cuda:0")
]
Probability = Annotated[float, Field(ge=0, le=1, description="float from 0 to 1")]


def type_problems(where: str, types: Mapping[str, object], values: Mapping) -> list[str]:
    """List the ``values`` that do not fit their ``types``; each problem starts with ``where``."""
    return [
        f"{where} {name}: {mismatch(value, types[name])}"
        for name, value in values.items()
        if name in types and not fits(value, types[name])
    ]


def fits(value: object, annotation: object) -> bool:
    """Check whether a plain value, as YAML gives it, is of an annotated type."""
    try:
        # As JSON, so that an enumeration takes the text of a member, and a tuple a list.
        text = json.dumps([value], default=os.fspath)
        TypeAdapter(list[annotation], config=_CONFIG).validate_json(text)
    except (ValidationError, TypeError):
        return False
    return True


def mismatch(value: object, annotation: object) -> str:
    """Describe a value that does not fit its type: what it is, and what is expected."""
    got, expected = reprlib.repr(value), inspect.formatannotation(annotation)
    expected = re.sub(r"(typing\.)?Annotated\[(\w+), Gt\(gt=0\)\]", r"\2 above 0", expected)
    expected = re.sub(r"(typing\.)?Annotated\[(\w+), Ge\(ge=0\)\]", r"\2 from 0", expected)
    named = r"(?:typing\.)?Annotated\[\w+, FieldInfo\(.*description='([^']*)'.*\)\]"
    expected = re.sub(named, r"\1", expected)
    expected = re.sub(r"(typing\.)?Annotated\[(\w+), FieldInfo\(.*\)\]", r"\2", expected)
    expected = re.sub(r"^(?:typing\.)?Optional\[(.*)\]$", r"\1 | None", expected)
    expected = expected.replace("collections.abc.Sequence", "list")
    if isinstance(value, str) and "Literal[" in expected:
        hint = nearest(value, re.findall(r"'(\w+)'", expected))
        expected += f"; {hint}" if hint.startswith("did") else ""
    expected = re.sub(r"(?:typing\.)?Literal\[(.*?)\]", r"one of \1", expected)
    if isinstance(value, float) and not math.isfinite(value):
        expected = f"finite {expected}"
    if isinstance(value, str) and ("int" in expected or "float" in expected):
        with suppress(ValueError):  # it may not look like a number either
            number = yaml.safe_dump(float(value)).split()[0]
            got = f"the text {got}"
            expected += f": YAML takes 1e-5 and '1' for text; write {number.removesuffix('.0')}"
    return f"got {got}, expected {expected}"
