"""Data sets in one record shape; one module a source.

Every record has an ``image``, an ``id``, a ``source``, a ``split``, a ``category``, and, for drawn
scenes, its ``tags``: what is in it, exactly. Sets about one policy per row carry ``policy`` and
``label``; the drawn SafeEditBench has one ``label`` column a level instead. Real pictures have
labels that people gave, and a ``status``: see ``labelled``; ``sources`` loads them by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL.Image import Image


class Sample(NamedTuple):
    """One picture to judge. ``tags`` say what is in a drawn scene; real pictures have none."""

    id: str
    image: Image
    tags: frozenset[str] = frozenset()
