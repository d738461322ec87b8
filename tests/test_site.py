"""The site of the documentation builds without a warning; its pages are looked at in a real browser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

ROOT = Path(__file__).parents[1]
BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, its gallery as text: what the pages compute has no part in how they are built."""
    for package in ("sphinx", "furo", "myst_parser", "sphinx_gallery", "sphinx_copybutton"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-W", "--keep-going", "-D", "plot_gallery=0"]
    outcome = subprocess.run(
        [*command, "-c", "docs/site", ".", str(folder)], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    return folder


class Page(HTMLParser):
    """What a page links to, which places it has, and its pictures."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.pictures: list[dict[str, str | None]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if found.get("id"):
            self.places.add(found["id"])
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag == "img":
            self.pictures.append(found)


@pytest.mark.extras
def test_every_link_leads_somewhere_and_every_picture_has_words(site):
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 60
    broken, wordless = [], []
    for path, page in pages.items():
        for link in page.links:
            address, place = urldefrag(link)
            if "://" in address or address.startswith("mailto:"):
                continue
            target = (path.parent / unquote(address)).resolve() if address else path
            if not target.exists() or (place and target in pages and unquote(place) not in pages[target].places):
                broken.append(f"{path.name}: {link}")
        shown = [p for p in page.pictures if "_thumb." not in (p.get("src") or "")]  # those stand beside their words
        wordless += [f"{path.name}: {p.get('src')}" for p in shown if not (p.get("alt") or "").strip()]
    assert not broken
    assert not wordless


LOOK = """() => ({
    wide: document.scrollingElement.scrollWidth - window.innerWidth,
    missing: [...document.images].filter(i => i.loading !== 'lazy' && i.complete && !i.naturalWidth).map(i => i.src),
    paper: getComputedStyle(document.body).backgroundColor,
    title: document.title,
})"""


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_pages_in_a_browser(site, size, scheme):
    playwright = pytest.importorskip("playwright.sync_api")
    if BROWSER is None:
        pytest.skip("no chromium is installed")
    width, height = SIZES[size]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        errors: list[str] = []
        view.on("pageerror", lambda error: errors.append(str(error)))
        for path in sorted(site.rglob("*.html")):
            if path.parent == site:  # the front door leads on; search and index are Sphinx's
                continue
            view.goto(path.as_uri())
            found = view.evaluate(LOOK)
            assert found["wide"] <= 1, f"{path.relative_to(site)} is {found['wide']} pixels too wide"
            assert not found["missing"], path
            assert (found["paper"] == "rgb(255, 255, 255)") == (scheme == "light"), path
        browser.close()
    assert not errors
