"""The recipes of CONTRIBUTING.md, followed word for word in a copy of the repository."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

STEP = re.compile(
    r"(?:[Aa] new file `(?P<new>[^`]+)`"
    r"|[Ii]n `(?P<file>[^`]+)`, below the line `(?P<line>[^\n]+)`"
    r"|[Aa]t the end of `(?P<end>[^`]+)`"
    r"|and below the line `(?P<more>[^\n]+)`):\n\n"
    r"(?P<indent> *)```\w+\n(?P<text>.*?)\n(?P=indent)```\n",
    re.DOTALL,
)
RUN = """
import json, sys
import pytest
from wsisr_cli.main import main

for words in json.loads(sys.stdin.read()):
    if words[0] == "pytest":
        code = pytest.main([*words[1:], "-x"])
    else:
        sys.argv[:] = words
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
    if code:
        sys.exit(f"{words} ended with {code!r}")
print("all recipes work")
"""


def follow(text: str, root: Path) -> int:
    """Do what a recipe says; the number of files that it touched."""
    touched: set[str] = set()
    file = ""
    for step in STEP.finditer(text):
        file = step["new"] or step["file"] or step["end"] or file
        touched.add(file)
        # Blocks stand in a list; what indentation is left is the file's own.
        body = [line.removeprefix(step["indent"]) for line in step["text"].split("\n")]
        path = root / file
        assert path.is_file() != bool(step["new"]), file
        lines = [] if step["new"] else path.read_text(encoding="utf-8").rstrip("\n").split("\n")
        at = len(lines)
        if wanted := step["line"] or step["more"]:
            (at,) = [n + 1 for n, line in enumerate(lines) if line.strip() == wanted]
        elif lines:
            body = ["", "", *body]
        lines[at:at] = body
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(touched)


def test_recipes_work_as_they_are_written(tmp_path: Path) -> None:
    for name in ("wsisr", "cli", "tests", "manifests", "studies", "docs"):
        leave = shutil.ignore_patterns("__pycache__", "images", "fuzz", "crash", "interop")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=leave)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    recipes = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("\n## ")
    words = {"Three": 3, "Four": 4, "Five": 5}
    commands, done = [], 0
    for recipe in recipes:
        promised = re.search(r"^(\w+) places:", recipe, re.MULTILINE)
        if promised is None:
            continue
        assert follow(recipe, tmp_path) == words[promised[1]], recipe.split("\n")[0]
        (block,) = re.findall(r"Then:\n\n```sh\n(.*?)```", recipe, re.DOTALL)
        commands += [shlex.split(line) for line in block.splitlines()]
        done += 1
    assert done == 5 and len(commands) >= 8
    found = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(commands),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(tmp_path / "cli")))},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-2000:]
    assert found.stdout.endswith("all recipes work\n")
    # What was added is written as the rest is.
    for tool in (["check"], ["format", "--check"]):
        lint = [Path(sys.executable).with_name("ruff"), *tool, "--no-cache", "."]
        told = subprocess.run(lint, cwd=tmp_path, capture_output=True, text=True)
        assert told.returncode == 0, told.stdout[-2000:]
