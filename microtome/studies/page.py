"""A study's page: its claims as a table, then words, tables and charts; one file that asks the network for nothing."""

from collections.abc import Sequence
from html import escape

from microtome.notebook import page as notebook
from microtome.notebook.html import STYLE, piece
from microtome.store.records import Claim, Result
from microtome.studies.chart import Chart, svg
from microtome.studies.drawing import Drawing

Piece = notebook.Piece | Chart | Drawing

LOOKS = """<style>
:root{color-scheme:light dark;--ground:#fff;--ink:#1c1c1c;--faint:#666;--rule:#ddd;
--c0:#0b62a8;--c1:#b85000;--c2:#0a7a5c;--c3:#a1306f;--c4:#6b6000;--c5:#5b4bb5}
@media(prefers-color-scheme:dark){:root{--ground:#16181b;--ink:#e6e6e6;--faint:#a0a0a0;--rule:#3a3d42;
--c0:#6cb4f0;--c1:#f2a15c;--c2:#4fcfa5;--c3:#ea8cc0;--c4:#d6c84a;--c5:#b0a4ff}}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:46rem;margin:0 auto;padding:1.5rem 1rem 4rem}h1{margin:0 0 .2em;font-size:1.6rem}
.paper,footer{color:var(--faint);font-size:.9rem}figure{margin:1.5em 0}figcaption{font-weight:600}
svg{width:100%;height:auto;display:block}svg text{fill:var(--ink);font:12px system-ui,sans-serif}
svg text.axis{fill:var(--faint)}svg .grid{stroke:var(--rule);stroke-width:1;fill:none}
main .microtome{font-size:.92rem}main .microtome h4{font-size:1.15rem;margin:1.4em 0 .3em}
</style>"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(result: Result, question: str, pieces: Sequence[Piece]) -> str:
    """The whole document."""
    title = f"Study: {result.study}"
    body = "".join(drawn(one) for one in (claims_table(result.claims), *pieces))
    asked = ", ".join(f"{key} {value}" for key, value in result.arguments.items() if value != [])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><meta http-equiv="Content-Security-Policy" '
        f'content="{POLICY}"><title>{escape(title)}</title>{LOOKS}{STYLE}</head><body><main>'
        f'<h1>{escape(title)}</h1><p>{escape(question)}</p><p class="paper">{escape(result.paper)}</p>'
        f"<p>{escape(verdict(result))}</p>{body}"
        f"<footer>{escape(asked)}; {result.seconds:,.0f} seconds; microtome {escape(result.version)}</footer>"
        f"</main></body></html>"
    )


def verdict(result: Result) -> str:
    failed = sum(not claim.ok for claim in result.claims)
    return f"All {len(result.claims)} claims hold." if not failed else f"{failed} of {len(result.claims)} claims fail."


def drawn(one: Piece) -> str:
    if isinstance(one, Drawing):
        return one.svg()
    return svg(one) if isinstance(one, Chart) else f'<div class="microtome">{piece(one)}</div>'


def claims_table(claims: Sequence[Claim]) -> notebook.Table:
    rows = [
        [c.name, expectation(c), "none" if c.found is None else f"{c.found:.4g}", mark(c), c.source] for c in claims
    ]
    return notebook.Table(("claim", "expected", "found", "", "source"), rows, numeric=(2,))


def told(claim: Claim) -> str:
    return "none" if claim.found is None else f"{claim.found:.4g}"


def expectation(claim: Claim) -> str:
    if isinstance(claim.expected, str):
        return claim.expected
    return f"{claim.expected:g} ± {claim.tolerance:g}"


def mark(claim: Claim) -> str:
    return "✓ holds" if claim.ok else "✗ fails"
