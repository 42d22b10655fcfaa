"""Pages: one HTML file that needs no network, no script and no other file."""

import base64
from collections.abc import Sequence
from html import escape

_STYLE = """
:root{color-scheme:light;--line:#dfe3e8;--soft:#5c6570;--ink:#1d2329}
*{box-sizing:border-box}
body{margin:0;font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
color:var(--ink);background:#f5f6f8}
main{max-width:1180px;margin:0 auto;padding:1.2rem 1rem 3rem}
h1{font-size:1.6rem;line-height:1.25;margin:.4rem 0 1rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:0 0 .5rem}
section,header{background:#fff;border:1px solid var(--line);border-radius:8px;padding:1rem 1.1rem;margin:0 0 1rem}
p{margin:.3rem 0 .7rem;max-width:75ch;overflow-wrap:anywhere}
.soft{color:var(--soft);font-size:.9rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:0 0 .6rem}
dt{color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere}
.note{border-left:4px solid #d9822b;padding:.3rem .8rem;background:#fdf6ec}
.scroll{overflow-x:auto;max-width:100%;border:1px solid var(--line);border-radius:6px;margin:.4rem 0 .8rem}
.tall{max-height:70vh;overflow-y:auto}
table{border-collapse:collapse;width:100%;font-size:.875rem;font-variant-numeric:tabular-nums}
th,td{padding:.34rem .6rem;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
tr:last-child td{border-bottom:0}
thead th{position:sticky;top:0;background:#eef1f4;font-weight:600;vertical-align:bottom}
td.n{white-space:nowrap}
.n{text-align:right}
td.code,td.short{white-space:nowrap}
td.code{font-weight:600}
td.wide{min-width:9rem}
th.n{min-width:5rem}
td.wide:last-child{min-width:14rem}
.pill{display:inline-block;padding:.05rem .55rem;border-radius:1rem;font-size:.8rem;font-weight:600;white-space:nowrap}
.met{background:#dcf1e3;color:#14532d}
.chance{background:#e1ecf7;color:#1c4a76}
.missed{background:#fbe0dd;color:#8c1d13}
.none{background:#eceef1;color:#4b5560}
figure{margin:0}
img{display:block;width:100%;max-width:620px;height:auto}
summary{cursor:pointer;color:#1c4a76;padding:.2rem 0}
a{color:#1c4a76}
@media(min-width:960px){.pair{display:grid;grid-template-columns:minmax(0,5fr) minmax(0,6fr);gap:1.6rem}
.even{grid-template-columns:repeat(2,minmax(0,1fr))}}
@media(max-width:520px){body{font-size:15px}main{padding:.6rem .5rem 2rem}section,header{padding:.8rem .7rem}
th,td{padding:.3rem .45rem}dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.35rem}
td.wide{min-width:7rem}
.headlines thead{display:none}
.headlines tr{display:grid;grid-template-columns:repeat(3,1fr);padding:.4rem .5rem;border-bottom:1px solid var(--line)}
.headlines td{border:0;padding:.1rem 0;text-align:left}
.headlines td:nth-child(-n+2){grid-column:1/-1}
.headlines td[data-label]::before{content:attr(data-label);display:block;color:var(--soft);font-size:.75rem}}
@media print{body{background:#fff}.scroll{overflow:visible}.tall{max-height:none}}
"""


def document(title: str, facts: Sequence[tuple[str, str]], notes: Sequence[str], sections: Sequence[str]) -> str:
    """Return a page, which may load nothing but what it holds.

    Args:
        title: the heading.
        facts: names and values that say what the page is about.
        notes: what a reader has to know before the rest.
        sections: HTML; everything else is escaped here.
    """
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>",
        f"<h1>{escape(title)}</h1>\n<header>\n<dl>",
        *(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts),
        "</dl>",
        *(f'<p class="note">{escape(note)}</p>' for note in notes),
        "</header>",
        *sections,
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def image(content: bytes, alternative: str) -> str:
    """Return a figure that holds a PNG; ``alternative`` is the text that stands for it."""
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return f'<figure><img src="{source}" alt="{escape(alternative, quote=True)}"></figure>'


def pill(text: str, style: str) -> str:
    """Return a verdict in the color of ``style``: met, chance, missed or none."""
    return f'<span class="pill {style}">{escape(text)}</span>'
