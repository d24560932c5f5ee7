"""Data sets in one record shape, on disk and from published sources.

Every record has an ``image``, an ``id``, a ``source``, a ``split`` and a ``category``. Records of
drawn scenes have ``tags``: exactly what is in the picture. Sets with one policy per row have
``policy`` and ``label``; the drawn SafeEditBench has one column of labels per level instead. Real
pictures have labels given by people, and a ``status``: see ``real_rows``. ``sources`` loads them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL.Image import Image


class Sample(NamedTuple):
    """One picture to judge; ``tags`` list the content of a drawn scene, real pictures have none."""

    id: str
    image: Image
    tags: frozenset[str] = frozenset()
