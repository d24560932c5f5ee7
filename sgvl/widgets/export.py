"""The static twin: every state of the widgets in one HTML file, without a kernel or a network."""

import html
import json
import re
from collections.abc import Mapping
from pathlib import Path

import ipywidgets

from sgvl.errors import InputError
from sgvl.paths import PACKAGE
from sgvl.widgets.panels import Panel, Quiz, style

_SOURCE = re.compile(r'src="(data:[^"]+)"')


def export(path: Path, title: str, panels: Mapping[str, Panel], note: str = "") -> Path:
    """Write the panels, each under its heading, as one page that works from a file.

    Nothing is computed in the page: it holds what each panel shows for every choice, each picture
    once. Raises InputError for a panel into which one writes, since it has no last state.
    """
    pictures: dict[str, int] = {}

    def shared(fragment: str) -> str:
        def numbered(match):
            return f'data-picture="{pictures.setdefault(match[1], len(pictures))}"'

        return _SOURCE.sub(numbered, fragment)

    sections, data = [], []
    for heading, panel in panels.items():
        if not all(hasattr(control, "options") for control in panel.controls.values()):
            raise InputError(f"{heading}: one writes into it, which needs a kernel; leave it out")
        states = {
            ",".join(map(str, places)): shared(shown.html) for places, shown in panel.states()
        }
        quiz = (
            [[q.truth, q.model.verdict] for q in panel.questions] if isinstance(panel, Quiz) else []
        )
        data.append({"states": states, "quiz": quiz})
        controls = "".join(_control(name, control) for name, control in panel.controls.items())
        score = '<p class="score" aria-live="polite"></p>' if quiz else ""
        sections.append(
            f"<section><h2>{html.escape(heading)}</h2><form>{controls}</form>"
            f'<div class="view" aria-live="polite"></div>{score}</section>'
        )
    page = (PACKAGE / "widgets" / "page.html").read_text(encoding="utf-8")
    parts = {
        "title": html.escape(title),
        "note": html.escape(note),
        "style": style(),
        "sections": "\n".join(sections),
        # "</" would end the script in which the data stand.
        "data": json.dumps({"panels": data, "pictures": list(pictures)}).replace("</", "<\\/"),
    }
    written = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], page)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(written, encoding="utf-8", newline="\n")
    return path


def _control(name: str, control: ipywidgets.Widget) -> str:
    """A slider as a range with its stop beside it, any other choice as a menu."""
    label = html.escape(control.description)
    stops = [str(stop[0] if isinstance(stop, tuple) else stop) for stop in control.options]
    if isinstance(control, ipywidgets.SelectionSlider):
        shown = html.escape(json.dumps(stops))
        field = (
            f'<input type="range" min="0" max="{len(stops) - 1}" value="0" data-stops="{shown}">'
        )
        return f"<label>{label} {field} <output>{html.escape(stops[0])}</output></label>"
    options = "".join(
        f'<option value="{place}">{html.escape(stop)}</option>' for place, stop in enumerate(stops)
    )
    return f"<label>{label} <select>{options}</select></label>"
