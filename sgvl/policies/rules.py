"""Rules of a policy, and what they decide: about one thing at a place, and about a scene."""

from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sgvl.common.errors import need_known
from sgvl.policies.concepts import CATEGORIES, PLACES, concepts

Status = Literal["prohibited", "permitted"]
Severity = Literal["low", "medium", "high"]
SEVERITIES = get_args(Severity)
OPPOSITE = {"prohibited": "permitted", "permitted": "prohibited"}


class Rule(BaseModel):
    """One rule: the tags that it prohibits or permits, and the places where it does not apply."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    prohibit: list[str] = []
    permit: list[str] = []
    places: list[str] = Field(default=[], alias="except")
    text: Annotated[str, Field(min_length=1)]
    # Optional keys are left out where they are not set, so that digests stay what they were.
    severity: Annotated[Severity | None, Field(exclude_if=lambda severity: severity is None)] = None

    @model_validator(mode="after")
    def _closed(self):
        if bool(self.prohibit) == bool(self.permit):
            raise ValueError("a rule needs tags under either `prohibit` or `permit`")
        for tag in self.tags:
            need_known("unknown tag", tag, [*CATEGORIES, *concepts()])
        for place in self.places:
            need_known("unknown place under `except`", place, PLACES)
        return self

    @property
    def tags(self) -> list[str]:
        """Return the concepts or categories that the rule is about."""
        return self.prohibit or self.permit

    @property
    def status(self) -> Status:
        """Return the tags' status where the rule applies."""
        return "prohibited" if self.prohibit else "permitted"

    def status_at(self, place: str | None) -> Status:
        """Return the tags' status at a place: an exception turns it."""
        return OPPOSITE[self.status] if place in self.places else self.status

    def clause(self, tag: str) -> str:
        """Return the rule for one of its tags: ``weapons prohibited except museum, news``."""
        where = f" except {', '.join(self.places)}" if self.places else ""
        return f"{tag} {self.status}{where}"


class ItemRuling(NamedTuple):
    """A policy's decision about one concept at one place."""

    concept: str
    category: str
    status: Status
    clause: str  # the rule as ``Rule.clause`` writes it
    rule: Rule | None = None  # None: the default decided
    place: str | None = None

    def explain(self) -> str:
        """Return one sentence: ``knife: weapons prohibited except news, at the news permitted.``"""
        about_category = self.clause.split()[0] == self.category
        clause = self.clause if about_category else f"{self.category}, {self.clause}"
        turns = self.place and self.rule and self.rule.places
        here = f", at the {self.place} {self.status}" if turns else ""
        return f"{self.concept}: {clause}{here}."


class Ruling(NamedTuple):
    """The exact label of a scene, with the rule that fired and a decision for each item."""

    label: Literal["safe", "unsafe"]
    rule: str  # text of the rule that fired, or of the default
    items: tuple[ItemRuling, ...]

    @property
    def severity(self) -> str:
        """Return the highest severity of the rules that prohibit something here, or ""."""
        found = {item.rule.severity for item in self.items
                 if item.rule and item.status == "prohibited"}  # fmt: skip
        return next((severity for severity in reversed(SEVERITIES) if severity in found), "")

    def explain(self) -> str:
        """Return the rationale and the verdict, in the words that the nano model is trained on."""
        return " ".join([*(item.explain() for item in self.items), f"Answer: {self.label}"])
