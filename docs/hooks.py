"""What the build of the site adds to MkDocs: pages from outside of ``docs/``, the notebook, and formulas.

The pages are written so that they read well on a code host. Their links are therefore relative to the
repository; here they become links between the site's pages.
"""

from __future__ import annotations

import base64
import html
import json
import posixpath
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]

# Pages of the site whose source lies elsewhere.
SOURCES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "weights.md": "weight/README.md",
    "notebook.md": "docs/notebook.ipynb",
}

_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages whose source lies elsewhere."""
    for page, source in SOURCES.items():
        text = (ROOT / source).read_text("utf-8")
        if source.endswith(".ipynb"):
            text = _notebook(json.loads(text), files, config)
        files.append(File.generated(config, page, content=text))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links within the repository into links between pages."""
    name = page.file.src_uri
    folder = posixpath.dirname(SOURCES.get(name, f"docs/{name}"))
    pages = {source: page for page, source in SOURCES.items()}

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[1]))
        return pages.get(target, posixpath.relpath(target, "docs"))

    return _LINK.sub(moved, markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Turn formulas into MathML, which browsers show without a script or a font of ours.

    Raises:
        Exception: if LaTeX is wrong, which ends the build.
    """

    def formula(found: re.Match[str]) -> str:
        display = "block" if found[1] == "div" else "inline"
        return convert(html.unescape(found[2]), display=display)

    return _FORMULA.sub(formula, content)


def _notebook(notebook: dict[str, Any], files: Files, config: MkDocsConfig) -> str:
    """A notebook with its stored outputs as Markdown; its pictures become files."""
    parts = []
    for number, cell in enumerate(notebook["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                picture = f"pictures/notebook-{number}.png"
                content = base64.b64decode("".join(data["image/png"]))
                files.append(File.generated(config, picture, content=content))
                parts.append(f"![Output of the cell above]({picture})")
            else:
                parts.append(f"```text\n{''.join(data['text/plain']).rstrip()}\n```")
    return "\n\n".join(parts)
