"""The claims of the paper, one function each.

A function returns the effect that its claim is about. Its docstring is the statement that tables
print: the claim in our words, with its table or section in arXiv 2603.01228. These docstrings are
therefore sentences about the paper, not about the function.
"""

from collections.abc import Callable
from functools import wraps
from typing import NamedTuple

from sgvl.common.errors import need_known
from sgvl.experiments.claims.evidence import Effect, Evidence, Term
from sgvl.policies.policy import LEVELS

# Ids of the judges that the claims are about.
JUDGES = (
    *("base", "sft", "no_recap", "rl", "rl_safeedit", "full", "taxonomy"),
    *(f"sft_{level}" for level in LEVELS),
    *(f"rl_{level}" for level in LEVELS),
)
# Our bounds, where the paper gives none.
FEW = 10.0  # percent: a judge that finds fewer unsafe pictures answers safe to almost everything
KEPT = -5.0  # points: an ability is kept if no more is lost (the paper's loss is 3.8)

NOT_L1, NOT_L5 = LEVELS[1:], LEVELS[:-1]

CLAIMS: list[Callable[[Evidence], "Claim"]] = []


class Claim(NamedTuple):
    """A claim, its outcome, and the effect that decided it."""

    name: str
    statement: str
    outcome: str  # "holds", "does not hold", "cannot tell" or "vacuous"
    effect: float  # points (percent for one judge alone); NaN if something is missing
    low: float
    high: float
    n: int  # pairs or pictures that were resampled
    note: str


def claim(
    above: float | None = None, below: float | None = None, changed: tuple[str, str] | None = None
):
    """Register a function as a claim: the effect that it returns lies above, or below, a bound.

    ``changed`` are two judges, before and after a training. If they gave the same answers, a claim
    that would hold is "vacuous".
    """

    def register(measure: Callable[[Evidence], Effect]):
        @wraps(measure)
        def tested(evidence: Evidence) -> Claim:
            effect = measure(evidence)
            outcome = decide(effect, above, below)
            if outcome == "holds" and changed and evidence.same(*changed):
                outcome = "vacuous"
            name, statement = measure.__name__.replace("_", " "), " ".join(measure.__doc__.split())
            return Claim(name, statement, outcome, *effect)

        CLAIMS.append(tested)
        return tested

    return register


def decide(effect: Effect, above: float | None = None, below: float | None = None) -> str:
    """Return the outcome by the rule of ``sgvl.experiments.claims``; "cannot tell" if unknown."""
    if below is None:
        claimed, contrary = effect.low > above, effect.high < above
    else:
        claimed, contrary = effect.high < below, effect.low > below
    return "holds" if claimed else "does not hold" if contrary else "cannot tell"


def _on(frame: str, judge: str, policies: tuple[str, ...] = (), metric: str = "headline") -> Term:
    need_known("claims: judge", judge, JUDGES)
    return Term(frame, judge, policies, metric)


# -- trained on one level (Table 3): L1 prohibits nothing, so recall is about L2 to L5 -------------


@claim(below=FEW)
def sft_on_l1_degenerates(evidence):
    """After SFT on L1, a judge finds fewer than 10 % of what L2 to L5 prohibit (Table 3)."""
    return evidence.effect(_on("levels", "sft_L1", metric="recall"))


@claim(above=FEW, changed=("base", "rl_L1"))
def rl_on_l1_does_not_degenerate(evidence):
    """After RL on L1, a judge still finds more than 10 % of what L2 to L5 prohibit (Table 3)."""
    return evidence.effect(_on("levels", "rl_L1", metric="recall"))


@claim(below=0)
def sft_on_l1_hurts_other_levels(evidence):
    """SFT on L1 makes a judge worse than the base under L2 to L5 (Table 3)."""
    return evidence.effect(_on("levels", "sft_L1", NOT_L1), _on("levels", "base", NOT_L1))


@claim(below=0)
def sft_on_l5_hurts_other_levels(evidence):
    """SFT on L5 makes a judge worse than the base under L1 to L4 (Table 3)."""
    return evidence.effect(_on("levels", "sft_L5", NOT_L5), _on("levels", "base", NOT_L5))


@claim(above=0)
def rl_on_l5_overfits_less(evidence):
    """Under L1 to L4, RL on L5 leaves a better judge than SFT on L5 (section 4.1)."""
    return evidence.effect(_on("levels", "rl_L5", NOT_L5), _on("levels", "sft_L5", NOT_L5))


# -- recaption and the two stages (Tables 2 and 5) -------------------------------------------------


@claim(above=0)
def sft_teaches_names(evidence):
    """After SFT on recaptions, more harmful things are named than by the base (section 2.1)."""
    harmful = ("harmful",)
    return evidence.effect(_on("naming", "sft", harmful), _on("naming", "base", harmful))


@claim(above=0)
def recaption_helps(evidence):
    """SFT on recaptions beats SFT on the captions as they were, on UnsafeBench (Table 5)."""
    return evidence.effect(_on("content", "sft"), _on("content", "no_recap"))


@claim(above=0)
def rl_adds_to_sft(evidence):
    """RL after SFT beats SFT alone, on UnsafeBench (Table 5)."""
    return evidence.effect(_on("content", "full"), _on("content", "sft"))


@claim(above=0)
def both_stages_beat_the_base(evidence):
    """SFT and RL together beat the base, on UnsafeBench (Table 2)."""
    return evidence.effect(_on("content", "full"), _on("content", "base"))


# -- what is kept and what is lost (Tables 4 and 5, Figures 6 and 7) -------------------------------


@claim(above=KEPT, changed=("base", "full"))
def both_stages_keep_general_ability(evidence):
    """SFT and RL together cost less than 5 points of general ability (Table 5)."""
    return evidence.effect(_on("general", "full"), _on("general", "base"))


@claim(above=KEPT, changed=("base", "rl"))
def rl_keeps_general_ability(evidence):
    """RL alone costs less than 5 points of general ability (Table 4)."""
    return evidence.effect(_on("general", "rl"), _on("general", "base"))


@claim(below=0)
def the_fixed_taxonomy_loses_general_ability(evidence):
    """SFT on one taxonomy answers fewer general questions rightly than the base (Table 4)."""
    return evidence.effect(_on("general", "taxonomy"), _on("general", "base"))


@claim(below=0)
def the_fixed_taxonomy_loses_instruction_following(evidence):
    """SFT on one taxonomy gives fewer answers in the form asked for than the base (Figure 7)."""
    return evidence.effect(_on("form", "taxonomy"), _on("form", "base"))


@claim(above=0)
def the_fixed_taxonomy_leads_at_home(evidence):
    """SFT on one taxonomy beats RL on the same data, on LlavaGuard's own test (Table 4)."""
    return evidence.effect(_on("own", "taxonomy"), _on("own", "rl"))


@claim(below=0)
def the_fixed_taxonomy_trails_elsewhere(evidence):
    """SFT on one taxonomy is worse than RL on the same data, on UnsafeBench (Table 4)."""
    return evidence.effect(_on("content", "taxonomy"), _on("content", "rl"))


@claim(above=0)
def rl_beats_the_fixed_taxonomy_across_levels(evidence):
    """RL beats SFT on one taxonomy, same data, on SafeEditBench: mean over L1 to L5 (Table 6)."""
    return evidence.effect(_on("levels", "rl", LEVELS), _on("levels", "taxonomy", LEVELS))


@claim(above=0)
def both_stages_follow_unseen_policies(evidence):
    """SFT and RL together follow policies never seen better than the base (abstract, Table 1)."""
    unseen = {"frame": "following_harmful", "metric": "balanced_accuracy"}
    return evidence.effect(_on(judge="full", **unseen), _on(judge="base", **unseen))


# -- the benchmark and its training data (Table 6, section 4.2) ------------------------------------


@claim(above=0)
def safeedit_data_helps(evidence):
    """RL on edited pairs as well beats RL without them, mean over L1 to L5 (Table 6)."""
    return evidence.effect(_on("levels", "rl_safeedit", LEVELS), _on("levels", "rl", LEVELS))


@claim(above=0)
def conventional_levels_are_easier(evidence):
    """The base does better under L3 and L4 than under L1 and L5 (section 4.2)."""
    return evidence.effect(_on("levels", "base", ("L3", "L4")), _on("levels", "base", ("L1", "L5")))


@claim(below=0)
def minimal_edits_are_harder(evidence):
    """After both stages, edited pairs (under L4) are harder than UnsafeBench (section 3.1)."""
    # L4 prohibits the same as UnsafeBench's policy. The sets differ in their share of unsafe
    # pictures, on which balanced accuracy does not depend.
    edited = _on("levels", "full", ("L4",), "balanced_accuracy")
    return evidence.effect(edited, _on("content", "full", metric="balanced_accuracy"))
