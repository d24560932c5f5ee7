"""Draw charts of scores, shares and training curves."""

from collections.abc import Mapping
from textwrap import fill, shorten
from types import MappingProxyType

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

PAGE = 6.8  # inches of content in a figure as wide as both columns of a paper
LONGEST = 600  # letters of a description


def described(fig: plt.Figure, text: str) -> plt.Figure:
    """Close a figure, and give it the text that stands for it where nobody sees it.

    A notebook stores it beside the picture, ``save`` in the PNG; ``get_label`` returns it.
    """
    plt.close(fig)
    text = shorten(text, LONGEST, placeholder=" …")
    fig.set_label(text)
    fig._repr_mimebundle_ = lambda **_: ({}, {"image/png": {"alt": text}})
    return fig


def unsafe_share(shares: pd.DataFrame, paper: dict[str, float] | None = None) -> plt.Figure:
    """Draw Figure 4: the share of unsafe images under each policy, with its 95 % interval.

    Parameters
    ----------
    shares : what ``metrics.unsafe_shares`` returned: policy, n, value, low, high (percent)
    paper : the paper's shares by policy (percent), drawn as open markers
    """
    fig, ax = plt.subplots(layout="constrained")
    at = np.arange(len(shares))
    spread = [shares["value"] - shares["low"], shares["high"] - shares["value"]]
    ax.bar(at, shares["value"], width=0.62, color="#9ecae1", label="this data, 95 % interval")
    ax.errorbar(at, shares["value"], spread, fmt="none", ecolor="black", elinewidth=0.8, capsize=2)
    for x, row in zip(at, shares.itertuples(), strict=True):
        ax.text(x, row.high + 1.5, f"{row.value:.0f} %", ha="center")
    if paper:
        stated = shares["policy"].map(paper)
        marker = {"ls": "none", "marker": "D", "mfc": "white", "mec": "black"}
        ax.plot(
            at + 0.2,
            stated,
            clip_on=False,
            zorder=3,
            label="paper, stated or solved from its scores",
            **marker,
        )
    ax.set_xticks(at, [f"{row.policy}\nn = {row.n}" for row in shares.itertuples()])
    ax.set(ylabel="unsafe images (%)", ylim=(0, 100))
    ax.legend(loc="upper left")
    values = ", ".join(f"{row.policy} {row.value:.0f}" for row in shares.itertuples())
    return described(fig, f"Bars: the share of unsafe images by policy, in percent: {values}.")


def score_heatmap(scores: pd.DataFrame) -> plt.Figure:
    """Draw scores as a heat map: a row per judge, a column per policy, both averages last.

    Parameters
    ----------
    scores : what ``metrics.score_table`` returned; values in percent

    Darker is better; a cell without a value is white and reads "n/a".
    """
    import seaborn

    policies, judges = scores["policy"].unique(), scores["judge"].unique()
    values = scores.pivot(index="judge", columns="policy", values="value").loc[judges, policies]
    metric = scores.groupby("policy")["metric"].first().replace("f1", "F1")
    metric["macro"] = "mean"
    width, height = 1.4 + 0.62 * len(policies), 0.7 + 0.26 * len(judges)
    fig, ax = plt.subplots(figsize=(width, height), layout="constrained")
    blues = seaborn.light_palette("#56B4E9", as_cmap=True)  # black stays readable on all of it
    look = {"vmin": 0, "vmax": 100, "cmap": blues, "cbar": False, "linewidths": 1}
    seaborn.heatmap(values, ax=ax, annot=True, fmt=".1f", annot_kws={"color": "black"}, **look)
    for row, column in np.argwhere(values.isna().to_numpy()):
        ax.text(column + 0.5, row + 0.5, "n/a", ha="center", va="center", color="#595959")
    ax.set_xticklabels([f"{policy}\n{metric[policy]}" for policy in policies], rotation=0)
    ax.set_yticklabels(judges, rotation=0)
    ax.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    ax.axvline(sum(policies != "macro") - 1, color="white", linewidth=4)  # averages stand apart
    ax.set(xlabel="", ylabel="")
    text = f"A heat map of scores in percent: {len(judges)} judges by {', '.join(policies)}."
    return described(fig, f"{text} Darker is better; the table gives the numbers.")


def curve_labels(log: pd.DataFrame) -> dict[str, str]:
    """Return the columns of a training log that are drawn, with their labels."""
    labels = {"loss": "loss", "mean_token_accuracy": "share of tokens right"}
    if "reward" in log:
        labels = {"reward": "reward", "right": "share right", "says_safe": "says safe", "kl": "KL"}
    return {column: label for column, label in labels.items() if column in log}


def curves(
    log: pd.DataFrame, labels: dict[str, str], levels: Mapping[str, float] = MappingProxyType({})
) -> plt.Figure:
    """Draw training curves: a small panel for each column of a log, against its column ``step``.

    Parameters
    ----------
    labels : the columns to draw, with the title of each panel; one that the log lacks has no panel
    levels : where a dashed line crosses the panel of a column

    The black line is a running mean over a tenth of the log, and over no less than three rows. A
    log of one row is a dot, and one without rows an empty panel.
    """
    labels = {column: label for column, label in labels.items() if column in log}
    columns = max(1, min(len(labels), 4))
    rows = max(1, -(-len(labels) // columns))
    fig, axes = plt.subplots(
        rows, columns, figsize=(PAGE, 1.6 * rows), squeeze=False, layout="constrained"
    )
    for ax, (column, label) in zip(axes.flat, labels.items(), strict=False):
        values, dot = pd.to_numeric(log[column]), "." if len(log) == 1 else None
        ax.plot(log["step"], values, color="#9ecae1", lw=0.8)
        mean = values.rolling(max(len(log) // 10, 3), 1).mean()
        ax.plot(log["step"], mean, color="black", marker=dot)
        if column in levels:
            ax.axhline(levels[column], color="#555555", ls="--", lw=0.8)
        ax.set_title(label)
        ax.set_xlabel("step")
    for ax in axes.flat[len(labels) :]:
        ax.set_visible(False)
    dashed = [f" Dashed: {levels[c]:.0%} in {labels[c]}." for c in levels if c in labels]
    text = f"Training curves against the step: {', '.join(labels.values())}."
    return described(fig, text + "".join(dashed))


def trade_off(points: pd.DataFrame) -> plt.Figure:
    """Draw Figure 6: each judge's safety score against its general ability.

    Parameters
    ----------
    points : a row per judge with safety, safety_low, safety_high, general, general_low and
        general_high (percent)

    Where a judge lies far from most, by more than 30 points of general ability below their median,
    a second panel shows the others enlarged.
    """
    near = points[points["general"] >= points["general"].median() - 30]
    panels = {"all judges": points, "enlarged": near} if len(near) < len(points) else {"": points}
    fig, axes = plt.subplots(
        1, len(panels), figsize=(PAGE, 0.42 * PAGE), squeeze=False, layout="constrained"
    )
    # Each marker is smaller than the last, so that judges with equal scores show as rings.
    sizes = dict(zip(points["judge"], np.linspace(9, 4, len(points)), strict=True))
    colours = {judge: f"C{k}" for k, judge in enumerate(points["judge"])}
    for ax, (title, shown) in zip(axes.flat, panels.items(), strict=True):
        for row in shown.itertuples():
            across = [[row.general - row.general_low], [row.general_high - row.general]]
            up = [[row.safety - row.safety_low], [row.safety_high - row.safety]]
            style = {"fmt": "o", "ms": sizes[row.judge], "color": colours[row.judge], "lw": 0.7}
            ax.errorbar(row.general, row.safety, up, across, label=row.judge, capsize=2, **style)
        ax.set(xlabel="general ability (% right)", title=title)
    axes[0, 0].set_ylabel("SafeEditBench (macro, %)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside right center", frameon=False)
    values = [f"{row.judge} {row.general:.0f}, {row.safety:.0f}" for row in points.itertuples()]
    text = "A point for each judge, in percent, general ability across and safety upward"
    return described(fig, f"{text}: {'; '.join(values)}.")


def by_seed(runs: pd.DataFrame, means: pd.DataFrame) -> plt.Figure:
    """Draw a panel per measure: a point for each training run, and the mean with its interval.

    Parameters
    ----------
    runs : seed, judge, measure and value (percent)
    means : judge, measure, value, low and high (percent)
    """
    measures, judges = means["measure"].unique(), list(means["judge"].unique())
    fig, axes = plt.subplots(
        1,
        len(measures),
        figsize=(PAGE, 0.9 + 0.28 * len(judges)),
        sharey=True,
        layout="constrained",
    )
    for ax, measure in zip(axes, measures, strict=True):
        mean = means[means["measure"] == measure].set_index("judge").loc[judges]
        spread = [mean["value"] - mean["low"], mean["high"] - mean["value"]]
        style = {"fmt": "|", "ms": 11, "color": "black", "lw": 0.9, "capsize": 2, "zorder": 2}
        ax.errorbar(mean["value"], range(len(judges)), xerr=spread, **style)
        own = runs[runs["measure"] == measure]
        at = own["judge"].map(judges.index) + 0.28
        ax.plot(own["value"], at, "o", ms=4, color="#0072B2", alpha=0.7)
        ax.set(title=fill(measure, 16), xlim=(-4, 104), xlabel="%")
    axes[0].set_yticks(range(len(judges)), judges)
    axes[0].set_ylim(len(judges) - 0.4, -0.6)
    text = f"A point for each training run, and the mean with its interval: {', '.join(judges)}"
    return described(fig, f"{text}, by {', '.join(measures)}. The table gives the numbers.")


def adherence(rows: pd.DataFrame) -> plt.Figure:
    """Draw whether judges follow the policy, and only the policy: a row per judge.

    Parameters
    ----------
    rows : judge, panel, measure (two for each panel), n, value, low, high (percent), and blind: the
        most that a judge of one half of the input reaches, NaN where nothing is proven

    A dashed line is such a ceiling, in the colour of its measure; one at 0 is drawn as well.
    """
    panels, judges = rows["panel"].unique(), list(rows["judge"].unique())
    height = 0.3 * max(3, len(judges))  # of the rows
    size = {"figsize": (PAGE, 1.3 + height), "layout": "constrained"}
    fig, axes = plt.subplots(1, len(panels), sharey=True, squeeze=False, **size)
    looks = [("o", "#0072B2", "#0072B2"), ("s", "#D55E00", "white")]  # marker, colour, fill
    for ax, panel in zip(axes[0], panels, strict=True):
        measures, handles = rows[rows["panel"] == panel].groupby("measure", sort=False), []
        for k, (measure, own) in enumerate(measures):
            marker, colour, fill_colour = looks[k]
            at = own["judge"].map(judges.index) + 0.26 * k - 0.13
            spread = [own["value"] - own["low"], own["high"] - own["value"]]
            style = {"fmt": marker, "ms": 4.5, "color": colour, "mfc": fill_colour, "lw": 0.9}
            handles.append(ax.errorbar(own["value"], at, xerr=spread, label=measure, **style))
            for limit in own["blind"].dropna().unique():
                label = f"blind: at most {limit:g} %"
                handles.append(ax.axvline(limit, ls="--", lw=1, color=colour, label=label))
        ax.set(title=fill(panel, 18), xlim=(-4, 104), xlabel="%", xticks=[0, 50, 100])
        below = 0.5, -0.55 / (height + 0.4)
        ax.legend(handles=handles, loc="upper center", bbox_to_anchor=below)
    axes[0][0].set_yticks(range(len(judges)), judges)
    axes[0][0].set_ylim(len(judges) - 0.5, -0.5)
    text = f"A row for each of {len(judges)} judges, in percent, in panels: {', '.join(panels)}"
    return described(fig, f"{text}. Dashed lines: what a blind judge can reach. See the tables.")


def precision_recall(unsafe, p_unsafe, recall: float, precision: float) -> plt.Figure:
    """Draw precision against recall over all thresholds on P(unsafe), with one point marked.

    Parameters
    ----------
    unsafe : (rows,) labels as booleans
    p_unsafe : (rows,) a judge's P(unsafe)
    recall, precision : the marked point, as fractions
    """
    from sklearn.metrics import precision_recall_curve

    fig, ax = plt.subplots(layout="constrained")
    if np.any(unsafe):
        precisions, recalls, _ = precision_recall_curve(unsafe, p_unsafe)
        ax.step(100 * recalls, 100 * precisions, where="post")
    ax.plot(100 * recall, 100 * precision, "o", color="black", ms=7)
    ax.set(xlabel="recall (%)", ylabel="precision (%)", xlim=(0, 103), ylim=(0, 103))
    text = f"Precision against recall; marked: {100 * precision:.0f} % and {100 * recall:.0f} %."
    return described(fig, text)
