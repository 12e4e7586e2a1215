"""One page for everything: a self-contained HTML file that reads well on a phone, in light and in dark."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from .job import Figure, Job, Outcome, Table
from .progress import Silent
from .table import COLUMNS, cells

_LIGHT = {"text": "#1c2733", "paper": "#ffffff"}
_DARK = {"text": "#d7dee6", "paper": "#161c23"}
_PHOTO = {"text": "#7a8794", "paper": "none"}

_CSS = """
:root { color-scheme: light dark; --text: #1c2733; --soft: #566575; --paper: #ffffff; --card: #f3f6f9; --line: #d5dde5;
  --ours: #0072b2; --bar: #dfedf6; }
@media (prefers-color-scheme: dark) { :root { --text: #d7dee6; --soft: #93a3b3; --paper: #161c23; --card: #1f2831;
  --line: #36424e; --ours: #67b7e8; --bar: #20323f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 60rem; background: var(--paper); color: var(--text);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .3rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p { max-width: 44rem; } .soft { color: var(--soft); }
.scroll { overflow-x: auto; margin: 1rem 0; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: separate; border-spacing: 0; width: 100%;
  font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .6rem .7rem; color: var(--soft); }
th, td { padding: .4rem .7rem; text-align: right; white-space: nowrap; border-top: 1px solid var(--line); }
th { font-weight: 600; } tr { background: var(--paper); }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: inherit; }
table.words td { text-align: left; white-space: normal; } table.words th { text-align: left; }
tr.ours { background: var(--bar); } tr.ours td:first-child { color: var(--ours); font-weight: 600; }
td small { display: block; color: var(--soft); font-weight: 400; white-space: normal; min-width: 12rem; }
figure { margin: 1.4rem 0; } figcaption { margin-top: .5rem; color: var(--soft); font-size: .92rem; max-width: 44rem; }
img { max-width: 100%; height: auto; display: block; border-radius: 8px; border: 1px solid var(--line); }
nav a { display: inline-block; margin: 0 .9rem .3rem 0; color: var(--ours); }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); font-size: .85rem;
  color: var(--soft); }
@media print { .scroll { overflow: visible; } body { max-width: none; } }
"""


def render(figure: Figure, progress: Silent) -> tuple[bytes, bytes]:
    """The PNG of a figure in light and in dark."""
    progress.step(figure.name)
    if figure.photo:
        once = _png(figure, _PHOTO)
        return once, once
    return _png(figure, _LIGHT), _png(figure, _DARK)


def _png(figure: Figure, scheme: Mapping[str, str]) -> bytes:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    ink, paper = scheme["text"], scheme["paper"]
    coloured = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "axes.titlecolor")
    style: dict[str, Any] = {name: ink for name in coloured}
    style |= {"figure.facecolor": paper, "axes.facecolor": paper, "savefig.facecolor": paper, "font.size": 11}
    buffer = io.BytesIO()
    with mpl.rc_context(style):
        canvas = Canvas(figsize=figure.size, layout="constrained")
        FigureCanvasAgg(canvas)
        figure.draw(canvas)
        canvas.savefig(buffer, format="png", dpi=100 if figure.photo else 150)
    return buffer.getvalue()


def page(
    found: Sequence[tuple[Job, Outcome]], pictures: Mapping[str, tuple[bytes, bytes]], facts: Mapping[str, Any]
) -> str:
    """The page as one string; nothing in it points outside it."""
    links = "".join(f'<a href="#{escape(job.name)}">{escape(job.title)}</a>' for job, _ in found)
    versions = ", ".join(f"{escape(name)} {escape(version)}" for name, version in facts["versions"].items())
    body = "".join(_section(job, outcome, pictures) for job, outcome in found)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>randla tour</title><style>{_CSS}</style></head><body>
<h1>randla on real data</h1>
<p>Each table sets randla (tinted rows) beside the exact or customary method for the same task, in one run on this
machine.  <em>Error</em> is the true relative error in the Frobenius norm, computed afterwards from the whole matrix, or
what the line above a table says; <em>estimated</em> is what randla said it would be, without seeing the truth;
<em>error / best</em> compares it with the best possible, for a factorisation the best at that rank, so 1 is perfect.
<em>Faster</em> is relative to the first row.</p>
<nav>{links}</nav>
{body}
<footer><p>{"Quick run on smaller parts of the data. " if facts["quick"] else ""}{facts["seconds"]:.0f} seconds on
{facts["threads"]} threads.  Times are the least of up to five calls, after compilation.  Peak memory:
{escape(facts["memory_method"])}.</p><p>{versions}</p></footer>
</body></html>
"""


def _section(job: Job, outcome: Outcome, pictures: Mapping[str, tuple[bytes, bytes]]) -> str:
    first, *rest = (f"<p>{escape(paragraph)}</p>" for paragraph in outcome.text)
    figures = "".join(_picture(figure, *pictures[figure.name]) for figure in outcome.figures)
    tables = "".join(_word_table(table) for table in outcome.tables)
    return (
        f'<section id="{escape(job.name)}"><h2>{escape(job.title)}</h2>{first}{_measurements(outcome)}'
        f"{''.join(rest)}{figures}{tables}</section>\n"
    )


def _measurements(outcome: Outcome) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in COLUMNS)
    lines = []
    for row in outcome.rows:
        method, *values = cells(row)
        note = f"<small>{escape(row.note)}</small>" if row.note else ""
        columns = "".join(f"<td>{escape(value)}</td>" for value in values)
        lines.append(f"<tr{' class=ours' if row.ours else ''}><td>{escape(method)}{note}</td>{columns}</tr>")
    caption = f"<caption>{escape(outcome.size)}; {escape(outcome.task)}</caption>"
    return _html_table("measurements", caption, head, "".join(lines))


def _word_table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    caption = f"<caption>{escape(table.caption)}</caption>"
    return _html_table("words", caption, head, body)


def _html_table(kind: str, caption: str, head: str, body: str) -> str:
    inner = f"{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table class="{kind}">{inner}</table></div>'


def _picture(figure: Figure, light: bytes, dark: bytes) -> str:
    sources = [f"data:image/png;base64,{base64.b64encode(data).decode()}" for data in (light, dark)]
    in_dark = f'<source media="(prefers-color-scheme: dark)" srcset="{sources[1]}">' if dark != light else ""
    return (
        f"<figure><picture>{in_dark}"
        f'<img alt="{escape(figure.caption)}" src="{sources[0]}"></picture>'
        f"<figcaption>{escape(figure.caption)}</figcaption></figure>"
    )
