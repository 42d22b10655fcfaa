"""The pages of the site, a hook of mkdocs: documents where they lie in the project, and whatever these link to.

The navigation of mkdocs.yml is where it starts. From there links are followed: a document or a picture is taken as it
is; a notebook becomes a page with its outputs, another file a page that shows it, a folder its README or a list. So a
link that leads somewhere in the project leads somewhere on the site, and one that leads nowhere stops the build.
"""

import html
import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
WORKER = "docs/site_worker.js"
LANGUAGES = {".py": "python", ".yaml": "yaml", ".cff": "yaml", ".sh": "bash", ".bat": "bat", ".toml": "toml"}
LINK = re.compile(r"\]\((?P<path>(?!\w+:)[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")  # to something in the project
FENCED = re.compile(r"(?ms)^ *```.*?^ *```$")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Return the files of the theme and the pages, in place of what lies in docs/."""
    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    waiting, seen = [WORKER, *_paths(config.nav)], set[str]()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        source = ROOT / path
        if not source.exists():
            raise PluginError(f"{path}: is not there, and the navigation or a page links to it")
        if source.suffix in (".md", ".png", ".js"):
            files.append(File(path, str(ROOT), config.site_dir, config.use_directory_urls))
        else:
            files.append(File.generated(config, page_of(path), content=shown(path)))
        if source.suffix in (".md", ".ipynb"):
            text = source.read_text(encoding="utf-8") if source.suffix == ".md" else shown(path)
            waiting += [target for target, _ in links(text, path)]
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return a page's text, its links to files and folders turned into links to their pages."""
    path = page.file.src_uri
    if page.file.generated_by and not path.endswith(".ipynb.md"):  # it shows a file as it is
        return markdown
    for target, link in links(markdown, path):
        relative = posixpath.relpath(page_of(target), posixpath.dirname(path) or ".")
        markdown = markdown.replace(f"]({link['path']}{link['anchor'] or ''})", f"]({relative}{link['anchor'] or ''})")
    return markdown


def on_post_build(*, config: MkDocsConfig) -> None:
    """Put the index of the search into a script, as a page that is opened from a file can read no other file."""
    folder = Path(config.site_dir) / "search"
    index = (folder / "search_index.json").read_text(encoding="utf-8")
    (folder / "search_index.js").write_text(f"var __index = {index}", encoding="utf-8")


def _paths(nav: Any) -> Iterator[str]:
    """Yield what the pages of a navigation stand for."""
    if isinstance(nav, str):
        yield nav if (ROOT / nav).exists() else nav.removesuffix(".md")
    else:
        for one in nav.values() if isinstance(nav, dict) else nav:
            yield from _paths(one)


def links(markdown: str, path: str) -> Iterator[tuple[str, re.Match[str]]]:
    """Yield what a page links to in the project, by its path there, and the link."""
    for found in LINK.finditer(FENCED.sub("", markdown)):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), found["path"]))
        readme = f"{target}/README.md"
        yield (readme if (ROOT / readme).is_file() else target), found


def page_of(path: str) -> str:
    """Return the page, or the picture, that stands for a file or a folder of the project."""
    source = ROOT / path
    if source.is_dir():
        return f"{path}/README.md"
    return path if source.suffix in (".md", ".png", ".js") else f"{path}.md"


def shown(path: str) -> str:
    """Return the page of a folder, a notebook or another file."""
    source = ROOT / path
    if source.is_dir():
        return listing(source)
    text = source.read_text(encoding="utf-8")
    if source.suffix == ".ipynb":
        return "\n\n".join(part for cell in json.loads(text)["cells"] for part in cell_parts(cell))
    fence = f"```{LANGUAGES.get(source.suffix, 'text')}"
    return f"# {source.name}\n\n`{path}`\n\n{fence}\n{text.rstrip()}\n```\n"


def listing(folder: Path) -> str:
    """Return a page with the names of what is in a folder of the project."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith((".", "__")))
    return "\n".join([f"# {folder.relative_to(ROOT).as_posix()}", "", *(f"- `{name}`" for name in names), ""])


def cell_parts(cell: dict[str, Any]) -> Iterator[str]:
    """Yield a notebook's cell in Markdown: text, or code and what it gave."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            yield f'<img alt="" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
        elif "text/html" in data:
            yield "".join(data["text/html"])
        else:
            yield f"<pre><code>{html.escape(''.join(output.get('text') or data['text/plain']).rstrip())}</code></pre>"
