"""`wsisr report`: which page a path gets, and where it is put."""

import subprocess
import sys
from pathlib import Path

import pytest
from reporting_samples import write_run
from store_samples import make_store
from typer.testing import CliRunner
from wsisr_cli.main import app

from wsisr.errors import ConfigError, StoreError
from wsisr.reporting.writing import write_report


def test_a_store_gets_its_page_beside_it(tmp_path: Path) -> None:
    make_store(tmp_path / "pairs.zarr", {"a": 2, "b": 1})
    result = CliRunner().invoke(app, ["report", str(tmp_path / "pairs.zarr")])
    assert result.exit_code == 0, result.output
    page = tmp_path / "pairs.report" / "report.html"
    assert f"Written: {page}" in result.output.replace("\n", "")
    assert "3 pairs from 2 slides" in page.read_text(encoding="utf-8")


def test_runs_and_their_folder_get_theirs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs" / "edsr-x4")
    assert write_report(run) == run / "report.html"
    assert write_report(tmp_path / "runs") == tmp_path / "runs" / "report.html"


def test_output_may_be_a_file_or_a_folder(tmp_path: Path) -> None:
    run = write_run(tmp_path / "edsr-x4")
    assert write_report(run, tmp_path / "new" / "x.html") == tmp_path / "new" / "x.html"
    assert write_report(run, tmp_path) == tmp_path / "report.html"


def test_anything_else_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "slide.svs").write_bytes(b"II*")
    for path, words in (
        (tmp_path / "none", "does not exist"),
        (tmp_path / "slide.svs", "wsisr inspect"),
        (tmp_path, "is none of these"),
    ):
        with pytest.raises(ConfigError, match=words):
            write_report(path)
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    with pytest.raises(StoreError):
        write_report(tmp_path)


def test_pages_need_neither_torch_nor_a_slide_library(tmp_path: Path) -> None:
    make_store(tmp_path / "pairs.zarr", {"a": 2})
    write_run(tmp_path / "runs" / "edsr-x4")
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from wsisr.reporting import Page\n"
        "from wsisr.drawing import chart\n"
        "light = {'cv2', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "from wsisr.reporting.writing import write_report\n"
        f"write_report(Path({str(tmp_path / 'pairs.zarr')!r}))\n"
        f"write_report(Path({str(tmp_path / 'runs' / 'edsr-x4')!r}))\n"
        "heavy = {'torch', 'openslide', 'tiffslide', 'tifffile', 'pydicom', 'wsisr.slides'}\n"
        "heavy.add('matplotlib.pyplot')\n"
        "print(sorted(light), sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"
