"""Properties that hold for any input: it gives a sound result, or one line that names it.

`make test` tries the same examples each time; `make test-faults` tries others, for an hour. What
they found is kept as ``@example``.
"""

import copy
import inspect
import json
import math
import warnings
from functools import cache
from pkgutil import resolve_name

import hypothesis.strategies as st
import pytest
import yaml
from hypothesis import example, given, settings

from sgvl.common.errors import InputError
from sgvl.data.sources.registry import SOURCES
from sgvl.judges import JUDGES
from sgvl.recaption import CAPTIONERS
from sgvl.run import units
from sgvl.run.parameters import value_problems


def tries(n: int):
    """How many examples a property gets in `make test`; a hundred times as many in an hour."""
    return settings(max_examples=n if settings.get_current_profile_name() == "ci" else 100 * n)


def one_line_each(error: InputError) -> None:
    assert error.problems
    for problem in error.problems:
        assert problem.strip() and len(problem.splitlines()) == 1 and len(problem) < 5_000
        problem.encode()  # it can be printed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("properties")


# -- parameters ------------------------------------------------------------------------------------

WORDS = (
    "", "nano", "chat", "served", "folder", "/", "..", "runs/nano", "L1", "recap", "1e-5", "none",
    "x" * 300, "a\0b", "\ud800", "sgvl", "cpu", "all", "no", ".inf", "0", "~", "two\nlines",
)  # fmt: skip
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from([0, -1, 10**30, 1e308, math.inf, math.nan]),
    st.text(max_size=8),
    st.sampled_from(WORDS),
    st.dates(),
    st.binary(max_size=3),
)
KEYS = st.one_of(st.text(max_size=5), st.integers(), st.booleans(), st.none(), st.dates())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=4,
)
# As people and programs write values that are none: parts of a YAML file.
WRITTEN = st.text(max_size=12) | st.sampled_from(
    (
        "!!bool maybe", "!!int x", "!!float x", "!!timestamp x", "!!binary x", "!!set [a]", "0x_",
        "0b_", "2020-13-45", "2020-01-01", "9" * 5000, "? [a]\n: b", "<<: {a: 1}", "=", "!!null x",
        "1:60", "{a: 1, a: 2}", "&a [*a]", "!!omap [a]", "!!pairs [a]", "'", "[", "{", "%YAML 1",
        '"\\ud800"', '"\\x00"', "- - -", "|\n a", "---\na: 1",
    )
)  # fmt: skip


@cache
def every_unit() -> dict[str, units.Unit]:
    """The units of nano, and the one that trains again."""
    return units.load_units("nano") | units.load_units("nano_seeds")


@cache
def option_names() -> list[str]:
    """Every option of every judge, captioner and source, and every field of settings and lora."""
    import peft
    import trl

    kinds = [*JUDGES.values(), *SOURCES.values(), *CAPTIONERS.values()]
    names = {name for kind in kinds for name in inspect.signature(resolve_name(kind)).parameters}
    fields = [trl.SFTConfig, trl.GRPOConfig, peft.LoraConfig]
    names |= {name for config in fields for name in config.__dataclass_fields__}
    return sorted(names)


def places(value, path=()):
    """Every place in a parameter value: keys and indices from the top."""
    yield path
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in inner:
            yield from places(part, (*path, key))


@st.composite
def changed_parameters(draw):
    """A unit and its parameters with any value in one place, an old or a new one."""
    unit = every_unit()[draw(st.sampled_from(sorted(every_unit())))]
    values = copy.deepcopy(unit.parameters)
    *path, last = draw(st.sampled_from([place for place in places(values) if place]))
    inside = values
    for key in path:
        inside = inside[key]
    new, there = draw(VALUES), inside[last]
    if isinstance(there, dict) and draw(st.booleans()):
        there[draw(st.sampled_from(option_names()) | KEYS)] = new
    elif isinstance(there, list) and draw(st.booleans()):
        there.append(new)
    else:
        inside[last] = new
    return unit.name, values


def check_unit(name: str, text: str, folder) -> dict:
    """Check one unit with another parameter file, as --dry-run does; returns the parameters."""
    unit = every_unit()[name]
    file = folder / unit.profile / f"{name}.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(units, "PARAMS", folder)
        others = [n for n, other in every_unit().items() if other.profile == unit.profile]
        new = units._load_unit(name, unit.profile, others, every_unit())
        patch.undo()
        if problems := value_problems(new.source, new.parameters, name):
            raise InputError(problems)
    return new.parameters


def sound_or_one_line(name: str, text: str, folder) -> None:
    try:
        sound = check_unit(name, text, folder)
    except InputError as error:
        one_line_each(error)
        return
    # Equal after JSON: no dates, no keys that are numbers, nothing infinite, no half characters.
    assert json.loads(json.dumps(sound, allow_nan=False)) == sound
    json.dumps(sound, ensure_ascii=False).encode()
    for path in places(sound):
        inside = sound
        for key in path:
            inside = inside[key]
        if isinstance(inside, int) and path[0] not in ("settings", "lora", "judges"):
            assert inside >= 0, path


@tries(200)
@given(changed_parameters())
@example(("03_sft.recap", {"settings": {5: 1, "max_steps": 2}}))
@example(("09_seeds", {"profile": "nano_seeds", "settings": {"max_stepz": 2}}))
@example(("09_seeds", {"profile": "nano_seeds", "settings": {"learning_rate": math.inf}}))
@example(("09_seeds", {"profile": "nano_seeds", "trainings": [1, -2]}))
@example(("05_benchmark", {"judges": [{"kind": "rule", "name": {"a": 1}}]}))
@example(("05_benchmark", {"bench": "x" * 300}))
def test_any_value_in_any_place_is_checked_before_anything_runs(folder, changed):
    name, values = changed
    sound_or_one_line(name, yaml.safe_dump(values), folder)


@tries(80)
@given(st.sampled_from(["seed", "sources", "blur", "style"]), WRITTEN)
@example("seed", "9" * 5000)
@example("blur", "!!bool maybe")
def test_any_text_in_a_parameter_file_is_checked(folder, key, text):
    sound_or_one_line("01_data", f"profile: nano\n{key}: {text}\n", folder)
