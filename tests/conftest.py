"""Fixtures that every test may use."""

import fcntl
import os
import signal
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long drawing an example takes says something of the machine and nothing of the code.
settings.register_profile("wsisr", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("wsisr")

os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A background job ignores Ctrl-C, and so would the commands that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Verdicts on readers and keys of pseudonyms are kept for the run, not where those of who
    runs the tests are."""
    os.environ["WSISR_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("configuration"))


@pytest.fixture(scope="session", autouse=True)
def _builds_in_this_process() -> None:
    """Builds that name no runner start no processes, whose imports cost more than small slides.

    What several processes do is tested with a ``ProcessRunner``, and with commands that run in
    processes of their own.
    """
    from wsisr.building import state
    from wsisr.runners import SerialRunner

    state.ProcessRunner = lambda workers: SerialRunner()  # type: ignore[assignment,misc]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real slides and patches that lies beside the project on some machines."""
    folder = Path(os.environ.get("WSISR_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real slides are not here ({folder}); set WSISR_TEST_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a folder once for all worker processes of a test run: ``made_once(name, make)``."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base

    def get(name: str, make: Callable[[Path], object]) -> Path:
        folder = root / name
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = root / f"{name}.done"
            if not done.exists():
                make(folder)
                done.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def small_camelyon(made_once: Callable[..., Path]) -> Path:
    """Six generated slides of about 2500 px in CAMELYON16's flat layout, with their truth."""
    from wsisr.testing.camelyon import write_camelyon16_like

    return made_once(
        "small-camelyon",
        lambda folder: write_camelyon16_like(
            folder, normals=2, tumours=2, tests=2, side_px=2560, seed=5
        ),
    )


@pytest.fixture(scope="session")
def tree_digest() -> Callable[[Path], str]:
    """Hash of every file of a tree with its name: two trees are the same, or they are not."""

    def digest(root: Path) -> str:
        total = sha256()
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            total.update(path.relative_to(root).as_posix().encode() + b"\0")
            total.update(sha256(path.read_bytes()).digest())
        return total.hexdigest()

    return digest
