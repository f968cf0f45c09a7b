"""`wsisr upscale` as a user types it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from slides_samples import picture
from typer.testing import CliRunner
from upscaling_samples import slide_file
from wsisr_cli.main import app

from wsisr.errors import ConfigError
from wsisr.runners import part_of
from wsisr.slides import SlideSource, open_slide
from wsisr.slides.discovery import IMAGE_SUFFIXES, MORE_IMAGE_SUFFIXES, TIFF_SUFFIXES
from wsisr.upscaling.batch import output_names
from wsisr.upscaling.pyramid import partial_folder

RUN = CliRunner()
UPSCALE = ["upscale", "--model", "bicubic"]


def _folder(root: Path) -> Path:
    source = root / "in"
    source.mkdir()
    slide_file(source / "a.tiff", 400, 300)
    slide_file(source / "b.tiff", 400, 300, seed=1)
    Image.fromarray(picture(60, 50)).save(source / "c.png")
    return source


def test_one_slide(tmp_path: Path) -> None:
    source = slide_file(tmp_path / "s.tiff", 400, 300)
    out = tmp_path / "o.ome.tiff"
    done = RUN.invoke(app, [*UPSCALE, str(source), "--from", "10x", "--scale", "2", "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert "400 x 300 px, 0.5 um/px" in done.stdout
    with open_slide(out) as slide:
        assert slide.info.levels[0].width_px == 400


def test_a_folder_in_parts_with_one_bad_slide(tmp_path: Path) -> None:
    source = _folder(tmp_path)
    (source / "bad.svs").write_bytes(b"nothing")
    out = tmp_path / "out"
    command = [*UPSCALE, str(source), "--scale", "2", "-o", str(out)]
    codes = [RUN.invoke(app, [*command, "--part", f"{i}/2"]).exit_code for i in (1, 2)]
    assert sorted(p.name for p in out.iterdir()) == ["a.ome.tiff", "b.ome.tiff", "c.png"]
    assert max(codes) >= 1
    with Image.open(out / "c.png") as made:
        assert made.size == (120, 100)
    again = RUN.invoke(app, command)
    assert again.exit_code == 1
    assert "3 output(s) were there already" in again.stdout and "FAILED bad.svs" in again.stdout


def test_several_devices_share_out_a_folder_and_change_no_byte(tmp_path: Path) -> None:
    source = _folder(tmp_path)
    (source / "bad.svs").write_bytes(b"nothing")
    made = {}
    for device in ("cpu", "cpu,cpu"):
        out = tmp_path / device
        command = [*UPSCALE, str(source), "--scale", "2", "-o", str(out), "--device", device]
        done = RUN.invoke(app, command)
        assert done.exit_code == 1 and "FAILED bad.svs" in done.stdout, done.output
        made[device] = {path.name: path.read_bytes() for path in sorted(out.iterdir())}
    assert made["cpu"] == made["cpu,cpu"] and len(made["cpu"]) == 3
    one = RUN.invoke(app, [*UPSCALE, str(source / "a.tiff"), "--device", "cpu,cpu", "-o", "x"])
    assert "share out the slides of a folder" in str(one.exception)


def test_parts_share_out_every_slide_once() -> None:
    names = [f"slide-{n}" for n in range(200)]
    counts = [sum(part_of(name, 3) == i for name in names) for i in (1, 2, 3)]
    assert sum(counts) == 200 and min(counts) > 40


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--scale", "2", "--part", "1/2"], "one input"),
        (["--scale", "0.5"], "--scale"),
        (["--scale", "2", "--from", "40x"], "coarser"),
        (["--scale", "2", "--model", "runs/none"], "no such run"),
        (["--scale", "2", "--compare", "nothing.svs"], "no such file"),
        (["--scale", "2", "--pool", "all"], "local or tile"),
    ],
)
def test_bad_usage_is_a_sentence(tmp_path: Path, options: list[str], words: str) -> None:
    source = slide_file(tmp_path / "s.tiff", 300, 200)
    done = RUN.invoke(app, [*UPSCALE, str(source), "-o", str(tmp_path / "o.ome.tiff"), *options])
    assert done.exit_code != 0 and words in str(done.exception)


@pytest.mark.parametrize("option", ["--region=1,2,3", "--tile=none", "--part=3/2"])
def test_options_that_cannot_be_read_are_usage_errors(tmp_path: Path, option: str) -> None:
    done = RUN.invoke(app, [*UPSCALE, "x.svs", "-o", str(tmp_path / "o.tiff"), option])
    assert done.exit_code == 2 and "write" in done.output


def test_a_folder_needs_a_folder(tmp_path: Path) -> None:
    source = _folder(tmp_path)
    done = RUN.invoke(app, [*UPSCALE, str(source), "--scale", "2", "-o", str(tmp_path / "o.tiff")])
    assert isinstance(done.exception, ConfigError)


def test_ctrl_c_keeps_the_partial_output_and_exits_130(tmp_path: Path) -> None:
    source = slide_file(tmp_path / "s.tiff", 6200, 150)
    out = tmp_path / "o.ome.tiff"
    command = [sys.executable, "-m", "wsisr_cli", *UPSCALE, str(source), "--scale", "4"]
    running = subprocess.Popen(
        [*command, "-o", str(out)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    journal = partial_folder(out) / "journal.jsonl"
    try:
        while not (journal.is_file() and journal.stat().st_size):
            assert running.poll() is None, running.stderr.read() if running.stderr else ""
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        _, told = running.communicate()
    finally:
        running.kill()
    assert running.returncode == 130
    assert "interrupted" in told and "Traceback" not in told
    assert not out.exists() and np.count_nonzero(list(partial_folder(out).iterdir())) >= 3


def test_pictures_are_read_as_they_are_meant(tmp_path: Path) -> None:
    grey = picture(60, 40)[..., 0]
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(grey).save(tmp_path / "turned.png", exif=exif)
    (tmp_path / "deep.png").write_bytes(imagecodecs.png_encode(grey.astype(np.uint16) * 4))

    def run(name: str, *more: str) -> tuple[str, Path]:
        out = tmp_path / f"up-{name}"
        options = ["--scale", "2", "--mpp", "0.25"]
        arguments = [*UPSCALE, str(tmp_path / name), *options, "-o", str(out), *more]
        done = RUN.invoke(app, arguments)
        assert (done.exit_code == 0) == out.exists()
        return " ".join((done.output + str(done.exception or "")).split()), out

    told, out = run("turned.png")
    assert "Turned upright" in told
    with Image.open(out) as image:
        assert (image.mode, image.size) == ("L", (80, 120))
    told, _ = run("deep.png")
    assert "--white" in told and f"reach {int(grey.max()) * 4} of 65,535" in told
    _, out = run("deep.png", "--white", "1020", "--rgb")
    with Image.open(out) as image:
        assert image.mode == "RGB"
        assert abs(np.asarray(image).mean() - grey.mean()) < 1


def test_a_folder_takes_the_images_that_are_taken_alone(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    image = Image.fromarray(picture(40, 30))
    for name in ("a.gif", "b.jp2", "c.tga", "c.png"):
        image.save(source / name)
    done = RUN.invoke(app, [*UPSCALE, str(source), "--scale", "2", "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in out.iterdir()) == ["a.png", "b.png", "c.png.png", "c.tga.png"]
    for path in out.iterdir():
        with Image.open(path) as made:
            assert made.size == (80, 60)


def test_no_kind_of_image_is_read_alone_and_passed_over_in_a_folder(tmp_path: Path) -> None:
    Image.init()
    listed = (*TIFF_SUFFIXES, *IMAGE_SUFFIXES, *MORE_IMAGE_SUFFIXES)
    seen = 0
    for suffix, kind in Image.registered_extensions().items():
        path = tmp_path / f"a{suffix}"
        if kind == "IM":  # on its way out of Pillow
            continue
        try:
            Image.fromarray(picture(48, 40)).save(path)
            open_slide(path, check=False).close()
        except Exception:  # not written, or not read, by this Pillow
            continue
        seen += 1
        assert suffix in listed, f"{suffix} is read where it is named"
    assert seen > 20


def test_outputs_of_one_stem_keep_apart() -> None:
    def source(name: str, kind: str) -> SlideSource:
        path = Path(name)
        return SlideSource(path=path, slide_id=name, files=(path,), kind=kind, relative=name)

    names = output_names(
        [source("a.tiff", "tiff"), source("b.svs", "tiff"), source("c.png", "image")]
    )
    assert names == {"a.tiff": "a.ome.tiff", "b.svs": "b.ome.tiff", "c.png": "c.png"}
    both = output_names([source("a.tiff", "tiff"), source("a.svs", "tiff")])
    assert both == {"a.tiff": "a.tiff.ome.tiff", "a.svs": "a.svs.ome.tiff"}


def test_without_a_network_the_line_to_type_is_said(tmp_path: Path) -> None:
    done = RUN.invoke(app, ["upscale", "s.svs", "-o", "o.ome.tiff"])
    assert isinstance(done.exception, ConfigError)
    assert "wsisr upscale s.svs --model auto -o o.ome.tiff" in str(done.exception)
