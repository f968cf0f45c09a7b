"""A store in a bucket of a real S3 server (moto, on this machine): there whole or not at all."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsisr.store.object_files import ObjectFiles
from wsisr.testing.camelyon import write_camelyon16_like

pytest.importorskip("moto", reason="needs moto[s3,server]")
boto3 = pytest.importorskip("boto3", reason="comes with moto")

KILLS = 8
SECRET = "not-to-be-told"


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    """An S3 server with one bucket, and the environment to reach it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        client = boto3.client(
            "s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name="us-east-1"
        )
        try:
            for _ in range(120):
                try:
                    client.create_bucket(Bucket="bucket")
                    break
                except Exception:
                    time.sleep(0.5)
            yield
        finally:
            process.terminate()
            process.wait()


def wsisr(*words: object, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "wsisr_cli", *map(str, words)],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    assert SECRET not in done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slides in the bucket, and the stores that are built from them there and here."""
    folder = tmp_path_factory.mktemp("bucket")
    write_camelyon16_like(folder / "slides", normals=3, tumours=1, tests=0, side_px=2560, seed=1)
    files = ObjectFiles("s3://bucket/slides")
    for path in sorted((folder / "slides").iterdir()):
        files.put(path.name, [path])
    options = ["--manifest", "default", "--hr", "40x", "--lr", "10x", "--size", 256]
    wsisr("build-pairs", "slides", "-o", "pairs.zarr", *options, cwd=folder)
    wsisr("build-pairs", "s3://bucket/slides/", "-o", "other.zarr", *options, cwd=folder)
    return folder


def test_a_store_of_slides_in_a_bucket_is_that_of_the_folder(work: Path) -> None:
    same = subprocess.run(["diff", "-r", "pairs.zarr", "other.zarr"], cwd=work, text=True)
    assert same.returncode == 0


def test_an_upload_is_killed_resumed_verified_trained_on_and_evaluated(work: Path) -> None:
    url, total = "s3://bucket/pairs.zarr", sum(p.is_file() for p in work.glob("pairs.zarr/**/*"))
    files = ObjectFiles(url)
    kills = 0
    for goal in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-m", "wsisr_cli", "upload", "pairs.zarr", url],
            cwd=work,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and len(files.sizes("")) < total * (goal + 1) // 10:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        there = files.sizes("")
        assert "zarr.json" not in there
        for slide in (work / "pairs.zarr" / "slides").iterdir():
            if f"slides/{slide.name}/zarr.json" in there:
                for path in slide.rglob("*"):
                    key = path.relative_to(work / "pairs.zarr").as_posix()
                    assert path.is_dir() or there.get(key) == path.stat().st_size
    assert kills == KILLS
    said = wsisr("upload", "pairs.zarr", url, cwd=work)
    assert "were there" in said
    assert "no fault found" in wsisr("verify", url, cwd=work)
    train = ["train", "--model", "edsr", "--preset", "tiny", "--steps", 4, "--data"]
    wsisr(*train, url, "-o", "there", cwd=work)
    wsisr(*train, "pairs.zarr", "-o", "here", cwd=work)
    rows = [(work / run / "validation.csv").read_text() for run in ("there", "here")]
    assert rows[0] == rows[1]
    evaluate = ["eval", "--model", "here", "--scales", 4, "--limit", 4, "--no-cost"]
    for data, output in ((url, "eval-there"), ("pairs.zarr", "eval-here")):
        wsisr(*evaluate, "--figures", 0, "--data", data, "-o", output, cwd=work)
    tables = [(work / name / "images.csv").read_text() for name in ("eval-there", "eval-here")]
    assert tables[0] == tables[1]
    wsisr("export", url, "exported", "--to", "png", cwd=work)
    assert list((work / "exported").rglob("*.png"))
    wsisr("report", url, cwd=work)
    texts = [p for p in work.rglob("*") if p.suffix in (".json", ".html", ".md", ".csv", ".yaml")]
    assert len(texts) > 20
    for path in texts:
        text = path.read_text(errors="replace")
        assert SECRET not in text and "127.0.0.1" not in text
