"""Charts as SVG, drawn when the page is written: the page needs no script, and CSS gives the colours."""

from collections.abc import Callable
from functools import cache
from typing import Any

import altair as alt
import polars as pl
import vl_convert

from newsfuse.report.section import Chart, legible

WIDE, NARROW = 680, 328
"""CSS pixels: the page's column, and a phone's screen of 360 less its margins."""
COLOURS = [f"var(--series-{number})" for number in range(1, 7)]
"""Defined in the page's style, for light and dark."""
DASHES = [[1, 0], [5, 3], [2, 2], [8, 3, 2, 3], [1, 4], [10, 4]]
"""Beside colours, for who cannot tell these apart."""
LETTERS = {WIDE: 28, NARROW: 14}
"""Of the names of rows and parts; longer ones are cut short, and stand whole in a table."""
SIZE_PX = 15
"""Of letters when labels are laid out. The page draws them at 12: a reader's font may be a quarter wider than ours."""
MOST_EPOCHS = 12
"""Named on an axis."""
MOST_POINTS = 500
"""Of one curve: more than that no screen shows."""
INTERVALS = {"name": pl.String, "mean": pl.Float64, "low": pl.Float64, "high": pl.Float64}
"""Columns of what `intervals` draws."""
Picture = Callable[[int], alt.Chart | alt.LayerChart]
"""Draws at a width."""


def curves(frame: pl.DataFrame, *, caption: str, y: str) -> Chart:
    """Lines over epochs. `frame`: step, value, curve (the line's name)."""
    thin = _legible(frame).sort("curve", "step").gather_every(1 + len(frame) // MOST_POINTS)
    names, epochs = thin["curve"].unique(maintain_order=True).to_list(), thin["step"].unique().sort()
    steps = epochs.gather_every(1 + len(epochs) // MOST_EPOCHS).to_list()

    def picture(width: int) -> alt.Chart:
        legend = None if names == [y] else _legend(width)
        return alt.Chart(_rows(thin)).mark_line(point={"filled": True, "size": 22}).encode(
            x=alt.X("step:Q", title="epoch", axis=alt.Axis(values=steps, format="d", grid=False)),
            y=alt.Y("value:Q", title=y, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5, format="~g")),
            color=_colour("curve", names, legend),
            strokeDash=alt.StrokeDash("curve:N", legend=legend, scale=alt.Scale(domain=names, range=DASHES)),
        ).properties(height=180)  # fmt: skip

    return _drawn(picture, caption)


def intervals(frame: pl.DataFrame, *, caption: str, x: str, zero: bool = False) -> Chart:
    """A dot per row with its interval. `frame`: name, mean, low, high (null: not known). `zero`: with a line at 0."""
    frame = _legible(frame)

    def picture(width: int) -> alt.LayerChart:
        labels = _labels(frame["name"], width)
        y = alt.Y("name:N", title=None, sort=list(labels.values()), axis=alt.Axis(domain=False))
        base = alt.Chart(_rows(frame.with_columns(pl.col("name").replace(labels)))).encode(y=y)
        scale = alt.Scale(zero=zero, nice=True)
        rule = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", axis=_few(width)), x2="high:Q")
        dot = base.mark_point(filled=True, size=60, opacity=1).encode(x=alt.X("mean:Q", title=x, scale=scale))
        none = alt.Chart(_rows(pl.DataFrame({"at": [0]}))).mark_rule(color="var(--muted)").encode(x="at:Q")
        layers = alt.LayerChart(layer=[none, rule, dot] if zero else [rule, dot])
        return layers.properties(height=alt.Step(22))

    return _drawn(picture, caption)


def shares(frame: pl.DataFrame, *, caption: str, x: str) -> Chart:
    """A bar per row, divided among parts. `frame`: name, part, value."""
    frame = _legible(frame)

    def picture(width: int) -> alt.Chart:
        names, parts = _labels(frame["name"], width), _labels(frame["part"].sort(), width)
        labelled = frame.with_columns(pl.col("name").replace(names), pl.col("part").replace(parts))
        return alt.Chart(_rows(labelled)).mark_bar(height=14).encode(
            y=alt.Y("name:N", title=None, sort=list(names.values()), axis=alt.Axis(domain=False)),
            x=alt.X("value:Q", title=x, stack="zero", axis=_few(width)),
            color=_colour("part", list(parts.values()), _legend(width, "square")),
        ).properties(height=alt.Step(24))  # fmt: skip

    return _drawn(picture, caption)


def _legible(frame: pl.DataFrame) -> pl.DataFrame:
    # before they are drawn: vl-convert 1.9 ends the whole process where a text has a control character
    texts = frame.select(pl.col(pl.String).fill_null(""))
    return frame.with_columns(pl.Series(text.name, map(legible, text), pl.String) for text in texts)


def _legend(width: int, symbol: str = "stroke") -> alt.Legend:
    return alt.Legend(title=None, symbolType=symbol, columns=width // 220)


def _labels(names: pl.Series, width: int) -> dict[str, str]:
    """What each distinct name is called, shortened so that no two are the same."""
    # not by Vega, which measures in halves of characters beyond the first 65,536, and fails where it cuts one in two
    labels: dict[str, str] = {}
    for name in names.unique(maintain_order=True):
        short = name if len(name) <= LETTERS[width] else f"{name[: LETTERS[width]]}…"
        labels[name] = f"{short} {len(labels) + 1}" if short in labels.values() else short
    return labels


def _colour(column: str, domain: list[str], legend: alt.Legend | None) -> alt.Color:
    return alt.Color(f"{column}:N", legend=legend, scale=alt.Scale(domain=domain, range=COLOURS))


def _few(width: int) -> alt.Axis:
    # "~g": numbers as they are, where the default would round a domain of one value to nothing
    return alt.Axis(tickCount=width // 110, format="~g")


def _rows(frame: pl.DataFrame) -> alt.InlineData:
    return alt.InlineData(values=frame.to_dicts())


def _drawn(picture: Picture, caption: str) -> Chart:
    wide, narrow = (_svg(picture(width), width) for width in (WIDE, NARROW))
    return Chart(caption, wide, narrow)


def _svg(chart: alt.Chart | alt.LayerChart, width: int) -> str:
    fit = alt.AutoSizeParams(type="fit-x", contains="padding")
    specification = chart.properties(width=width, autosize=fit).to_dict()
    return vl_convert.vegalite_to_svg(specification, config=_config())


@cache
def _config() -> dict[str, Any]:
    """Colours are variables of the page's style, which change with the reader's mode."""
    ink = {"labelColor": "var(--ink)", "titleColor": "var(--muted)", "labelFontSize": SIZE_PX, "titleFontSize": SIZE_PX}
    line = {"gridColor": "var(--line)", "domainColor": "var(--line)", "tickColor": "var(--line)"}
    return {
        "background": "transparent",
        "font": "system-ui, sans-serif",
        "view": {"stroke": None},
        "axis": {**ink, **line, "labelLimit": 0, "titleFontWeight": "normal", "ticks": False, "labelPadding": 6},
        "legend": {**ink, "orient": "top", "symbolStrokeWidth": 3, "labelLimit": 0},
        "mark": {"color": "var(--accent)"},
        "point": {"color": "var(--accent)"},
        "rule": {"color": "var(--accent)"},
    }
