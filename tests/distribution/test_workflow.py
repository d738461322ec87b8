"""The workflow names what there is: tests, commands, and the oldest versions that the package says it runs with."""

from __future__ import annotations

import re

import yaml
from archives import ROOT

WORKFLOW = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
JOBS = yaml.safe_load(WORKFLOW)["jobs"]


def cases(job: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = JOBS[job]["strategy"]["matrix"]["include"]
    return found


def test_files_and_commands_exist() -> None:
    for path in re.findall(r"tests/[\w/.]+", WORKFLOW):
        assert (ROOT / path).exists(), path
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"make ([\w-]+)", WORKFLOW)) <= set(targets)


def test_every_system_is_tested_and_installed_on() -> None:
    for job in ("test", "package"):
        assert {case["os"] for case in cases(job)} == {"ubuntu-latest", "macos-latest", "windows-latest"}


def test_the_oldest_and_the_newest_are_those_of_the_package() -> None:
    (torch,) = re.findall(r'"torch>=([\d.]+)"', PROJECT)
    (python,) = re.findall(r'requires-python = ">=([\d.]+)"', PROJECT)
    (oldest,) = [case for case in cases("package") if "--oldest" in case.get("options", "")]
    assert (oldest["python"], oldest["torch"]) == (python, f"torch=={torch}.0")
    named = re.findall(r"Python :: (3\.\d+)", PROJECT)
    assert {case["python"] for case in cases("test")} == {*named} == {python, *named}


def test_nothing_is_published_that_has_not_passed() -> None:
    assert set(JOBS["release"]["needs"]) == set(JOBS) - {"release"}
    assert yaml.safe_load(WORKFLOW)[True]["push"]["tags"] == ["v*"]  # YAML reads `on` as true
