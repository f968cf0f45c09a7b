"""Every command that the README shows is run, in its order, in one folder."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from wsisr.testing import SlideSpec, write_slide

SHORTER = {
    "train": ["--steps", "2", "--set", "val.count=1"],
    "eval": ["--limit", "1", "--figures", "1", "--no-cost"],
    "build-pairs": ["--size", "256"],
}
"""What is added for the sake of time: the shown command would train for minutes. What eval leaves
out here, builds by several processes, and patches of 1,024 px have tests of their own."""
RUN = """
import json, sys
from wsisr import runners
from wsisr.building import state
from wsisr_cli.main import main

state.ProcessRunner = lambda workers: runners.SerialRunner()
for words, fine in json.loads(sys.stdin.read()):
    sys.argv[:] = ["wsisr", *words]
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    if code not in fine:
        sys.exit(f"{words} ended with {code}")
"""
"""Commands in one process: what they import is most of what the small ones cost."""
NOT_RUN = ("make", "torchrun", "pip")
"""Set-up, and what needs several processes (tests/test_training_engine.py has that)."""


def shown_commands() -> list[str]:
    """Command lines of the README's shell blocks, comments left out."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.split("   #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, small_camelyon: Path) -> Path:
    """A working folder with the slides that the README speaks of."""
    work = tmp_path_factory.mktemp("readme")
    (work / "camelyon16").mkdir()
    for name in ("normal_001", "tumor_001", "test_001"):
        (work / "camelyon16" / f"{name}.tif").symlink_to(small_camelyon / f"{name}.tif")
    spec = SlideSpec(seed=3, layout="aperio", width_px=1024, height_px=1024, um_per_px=0.5)
    write_slide(work / "slide.svs", spec)
    (work / "study").mkdir()
    (work / "study" / "slide.svs").symlink_to(work / "slide.svs")
    return work


def test_every_shown_command_works(folder: Path) -> None:
    commands = [line for line in shown_commands() if not line.startswith(NOT_RUN)]
    assert len(commands) >= 19  # all that the README shows
    given = []
    for line in commands:
        program, *words = shlex.split(line)
        assert program == "wsisr", line
        more = [] if {"--show-config", "--size"} & {*words} else SHORTER.get(words[0], [])
        # Slides this small may give nothing, which a build says with exit code 1.
        given.append(([*words, *more], (0, 1) if words[0] == "build-pairs" else (0,)))
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(given),
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    for made in ("pairs.zarr", "runs/mihatp-x4", "eval/tables.md", "slide-20x.ome.tiff"):
        assert (folder / made).exists(), made


def test_every_link_of_the_documents_leads_somewhere() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if not target.startswith(("http:", "https:")):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
