"""Reports as people open them: well-formed, of one file, of a size to send, with the numbers of the tables."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

import lotto
from conftest import small_recipe
from lotto import papers
from lotto.core.errors import UsageError
from lotto.execution.serial import Serial
from lotto.recipe.tolerance import Tolerance
from lotto.report import plots
from lotto.report.colours import DARK, LIGHT, LINES, WORDS, contrast, on, rules
from lotto.report.compared import results_of
from lotto.report.comparison import page_of, write_comparison
from lotto.report.experiments import save_experiment
from lotto.report.inline import inline
from lotto.report.metric import Metric
from lotto.report.points import points_of
from lotto.report.save import save_result

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
KNOWN = [*papers.EXPERIMENTS.values()]
NAME = '<b>bold</b> & "co"'
VOID = {"meta", "link", "br", "hr", "img", "input"}
STANDARD = "http://www.w3.org/"
"""Names of XML's dialects begin so; nothing is loaded from there."""


class Page(HTMLParser):
    """A page that has to be well-formed: every element closed in its place, no name twice."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.points: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert not self.open
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words += data
        if self.open[-1:] in (["td"], ["th"]):
            self.rows[-1][-1] += data
        if self.open[-2:] == ["circle", "title"]:
            self.points.append(data)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Folders of `imp`, from two seeds, and one of two experiments."""
    folder = tmp_path_factory.mktemp("made")
    engine, recipe = Serial(lotto.Store(folder / "store")), small_recipe(name=NAME)
    for name, seed in (("one", 0), ("two", 5)):
        result = lotto.imp(recipe, levels=3, replicates=2, control_levels=[3], seed=seed, engine=engine)
        save_result(result, folder / name, f"lotto imp {NAME}", 1.0)
    for name in ("sparsity", "distances"):
        experiment = papers.get(f"stabilizing.{name}")
        options = experiment.options(recipe, {"replicates": 2, "levels": 3, "rewind_to": ("0it", "2it")})
        frame = experiment.run(options, engine)
        save_experiment(experiment, options, frame, folder / "runs", "c", 1.0, KNOWN, claims=papers.CLAIMS)
    return folder


def check(page: Path) -> Page:
    """What holds for every report."""
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) <= 1_000_000
    assert not [url for url in re.findall(r"https?://[^\s\"'<>]*", text) if not url.startswith(STANDARD)]
    assert not re.search(r"(src|href)=\"(?!#|[a-z0-9-]+-|data:)", text)
    read = Page(text)
    assert "b" not in read.tags, "a name is no markup"
    return read


def test_a_report_of_levels_begins_with_its_answer_and_has_the_numbers_of_its_table(made):
    read = check(made / "one" / "report.html")
    table = pd.read_csv(made / "one" / "table.csv")
    said = " ".join(read.words.split())
    answer = said.index("ticket") if "Sparsest matching ticket" in said else said.index("replicates; the mean")
    assert answer < said.index("Error against density")
    assert "to the dense network of the same replicate is" in said
    shown = [row for row in read.rows if row and row[0] in map(str, table["level"])][: len(table)]
    for row, (_, level) in zip(shown, table.iterrows(), strict=True):
        assert f"{100 * level['density']:.3g} %" in row
        assert any(cell.startswith(f"{level['error']:.2f} ± {level['error_std']:.2f}") for cell in row), row
        if level["level"]:
            assert f"{level['gap']:+.2f} ± {level['gap_high'] - level['gap']:.2f}" in row
            assert level["verdict"] in row
    ours = [text for text in read.points if text.startswith("IMP")][: len(table)]
    for text, (_, level) in zip(ours, table.iterrows(), strict=True):
        assert f"left {100 * level['density']:.4g} %" in text
        assert f"test error {level['error']:.4g} %" in text
        if level["level"]:
            assert text.endswith(f"{level['verdict']}")
    assert NAME in read.words


def test_a_report_of_experiments_begins_with_what_was_found(made):
    read = check(made / "runs" / "report.html")
    said = " ".join(read.words.split())
    assert said.index("Rewound to 0, ") < said.index("IMP, k = 0")
    assert "claim" in said[: said.index("The numbers of this figure")]
    frame = pd.read_csv(made / "runs" / "sparsity.csv")
    errors = frame[(frame["measure"] == "error") & (frame["kind"] == "imp") & (frame["rewind_step"] == 2)]
    for _, at in errors[errors["level"] > 0].groupby("level"):
        wanted = f"left {100 * at['density'].iloc[0]:.4g} %, test error {at['value'].mean():.4g} points, gap "
        assert any(wanted in text for text in read.points), wanted


def test_several_results_are_compared_on_one_page(made):
    folders = [made / "one", made / "two", made / "runs", made / "one"]
    page = write_comparison(folders, made / "both")
    read = check(page)
    said = " ".join(read.words.split())
    assert "4 results compared" in said
    assert "one is the same result as one: it is shown once." in said.replace(str(made) + "/", "")
    assert "distances has no errors of IMP against density" in said
    rows = pd.read_csv(page.with_suffix(".csv"))
    names = ["one", "two", "runs, sparsity, k = 0", "runs, sparsity, k = 2"]
    assert rows["result"].unique().tolist() == names
    for name in ("one", "two"):
        table = pd.read_csv(made / name / "table.csv")
        mine = rows[rows["result"] == name]
        assert mine["error"].tolist() == pytest.approx(table["error"].tolist())
        row = next(cells for cells in read.rows if cells[0] == name)
        for _, level in table[table["level"] > 0].iterrows():
            gap = f"({level['gap']:+.2f} ± {level['gap_high'] - level['gap']:.2f})"
            assert any(cell.startswith(f"{level['error']:.2f} ±") and cell.endswith(gap) for cell in row), row


def test_errors_of_different_metrics_have_figures_of_their_own(made):
    (one, two), _ = results_of([made / "one", made / "two"])
    other = replace(two, metric=Metric("mse", "", Tolerance.of("5%")))
    page = page_of([one, other])
    assert Page(page).tags.count("figure") == 2
    assert Page(page_of([one, two])).tags.count("figure") == 1
    assert "error, mse" in page


def test_what_cannot_be_compared_is_said(made, tmp_path):
    with pytest.raises(UsageError, match="holds no result"):
        results_of([made / "one", tmp_path])
    (tmp_path / "none").mkdir()
    for kind in ("csv", "json"):
        shutil.copy(made / "runs" / f"distances.{kind}", tmp_path / "none")
    with pytest.raises(UsageError, match=r"Nothing to compare: .*distances has no errors"):
        results_of([tmp_path / "none"])


@pytest.mark.parametrize("colour", ["#1b6ca8", "#d1495b", "#edae49", "#8a8a8a", "#440154", "#bddf26", "#000000"])
def test_lines_and_words_stand_out_from_light_and_from_dark_paper(colour):
    for scheme in (LIGHT, DARK):
        assert contrast(on(scheme, colour), scheme.paper) >= LINES
        assert contrast(on(scheme, colour, WORDS), scheme.paper) >= WORDS


def test_words_of_the_page_stand_out_from_what_they_are_on():
    style = Path(plots.__file__).with_name("style.html").read_text()
    blocks = style.split("@media screen and (prefers-color-scheme: dark)")
    for scheme, block in zip((LIGHT, DARK), blocks, strict=True):
        named = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block)) | {"paper": scheme.paper, "ink": scheme.ink}
        for words, ground in [
            ("ink", "paper"), ("faint", "paper"), ("link", "paper"), ("ink", "answer"), ("faint", "answer"),
            ("link", "answer"), ("ink", "good"), ("ink", "code"), ("paper", "ink"),
        ]:  # fmt: skip
            assert contrast(named[words], named[ground]) >= WORDS, (words, ground)


def test_a_figure_of_anybodys_can_be_pointed_at():
    figure, axis = plots.figure()
    axis.errorbar([1, 2], [3, 4], yerr=[0.5, 0.25], label="<i>")
    axis.bar([0.5], [2], label="bar")
    axis.scatter([1.5], [2.5], label="dot")
    axis.axhline(3)
    axis.set_ylabel("height, cm")
    drawn = inline(figure, "some", "<title>")
    assert {point.text for point in points_of(figure)} >= {"<i>: 1, height 3 ± 0.5 cm"}
    assert "<i>" not in drawn.svgs[0]
    assert [len(numbers.rows) for numbers in drawn.numbers] == [4]
    assert all(f"--l{colour[1:]}" in rules(drawn.colours, DARK) for colour in drawn.colours)


LOOK = """() => ({wide: document.scrollingElement.scrollWidth - window.innerWidth,
    paper: getComputedStyle(document.body).backgroundColor,
    line: getComputedStyle(document.querySelector('figure svg path[style*=stroke]')).stroke})"""


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("width", [1280, 375])
def test_reports_in_a_browser(made, width):
    playwright = pytest.importorskip("playwright.sync_api")
    if BROWSER is None:
        pytest.skip("no chromium is installed")
    compared = write_comparison([made / "one", made / "two"], made / "seen")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        errors: list[str] = []
        for page in (made / "one" / "report.html", made / "runs" / "report.html", compared):
            looks: list[dict] = []
            for scheme in ("light", "dark"):
                view = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
                view.on("pageerror", lambda error: errors.append(str(error)))
                view.on("console", lambda message: errors.append(message.text))
                view.on("request", lambda asked: None if asked.url.startswith("file:") else errors.append(asked.url))
                view.goto(page.as_uri())
                looks.append(view.evaluate(LOOK))
                tip = view.locator("figure.chart .tip").first
                assert not tip.is_visible()
                circle = view.locator("figure.chart").first.locator(".points circle:visible").first
                circle.hover()
                assert re.search(r"\d", tip.inner_text())
                view.mouse.move(0, 0)
                view.locator("figure.chart").first.locator("svg:visible").focus()
                view.keyboard.press("ArrowRight")
                first = tip.inner_text()
                view.keyboard.press("ArrowRight")
                assert tip.inner_text() != first
                view.keyboard.press("Escape")
                assert not tip.is_visible()
                view.close()
            assert not errors
            assert all(look["wide"] <= 0 for look in looks), page
            assert looks[0]["paper"] != looks[1]["paper"]
            assert looks[0]["line"] != looks[1]["line"]
        browser.close()
