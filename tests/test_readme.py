"""Every command that the README shows is run, in its order, in one folder."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from wsisr.testing import SlideSpec, write_slide

SHORTER = {"train": ["--steps", "2", "--set", "val.count=2"]}
"""What is added for the sake of time: the shown command would train for minutes."""
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
    (work / "camelyon16").symlink_to(small_camelyon)
    spec = SlideSpec(seed=3, layout="aperio", width_px=3072, height_px=3072, um_per_px=0.5)
    write_slide(work / "slide.svs", spec)
    (work / "study").mkdir()
    (work / "study" / "slide.svs").symlink_to(work / "slide.svs")
    return work


def test_every_shown_command_works(folder: Path) -> None:
    commands = [line for line in shown_commands() if not line.startswith(NOT_RUN)]
    assert len(commands) >= 19  # all that the README shows
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for line in commands:
        words = shlex.split(line)
        assert words[0] == "wsisr", line
        more = [] if "--show-config" in words else SHORTER.get(words[1], [])
        done = subprocess.run(
            [sys.executable, "-m", "wsisr_cli", *words[1:], *more],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        # Slides this small may give nothing, which a build says with exit code 1.
        fine = (0, 1) if words[1] == "build-pairs" else (0,)
        assert done.returncode in fine, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    for made in ("pairs.zarr", "runs/mihatp-x4", "eval/tables.md", "slide-20x.ome.tiff"):
        assert (folder / made).exists(), made


def test_every_link_of_the_documents_leads_somewhere() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if not target.startswith(("http:", "https:")):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
