"""The wheel in an empty environment: it installs without any other package, and works there."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]

ONE_LINE = """
import coord
with coord.connect("sqlite:///t.db") as c, c.lock("a").acquire(timeout=5) as held: print(held.token)
"""

ASYNCIO = """
import asyncio, coord
async def main():
    async with await coord.aio.connect("sqlite:///t.db") as c:
        async with await c.lock("a").acquire(timeout=5) as held: print(held.token)
asyncio.run(main())
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that COORD_TEST_WHEEL names, or one that is built from what is built already."""
    given = os.environ.get("COORD_TEST_WHEEL")
    if given:
        return Path(given)
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "maturin", "build", "--quiet", "--locked", "--out", str(out)]
    subprocess.run([*build, "--manifest-path", str(PROJECT / "Cargo.toml")], check=True)
    [built] = out.glob("*.whl")
    return built


@pytest.mark.timeout(1200)
def test_the_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    assert "-abi3-" in wheel.name
    assert wheel.name.startswith("coord-")
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("coord/__init__.py", "coord/py.typed", "coord/_native.pyi", "coord/_native.abi3.so"):
        assert name in names
    # coord.testing is for users; our own tests and sources are not in it.
    assert not [name for name in names if "tests/" in name or "/test_" in name or name.endswith(".rs")]

    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv/bin/python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-index", "--disable-pip-version-check", wheel]
    subprocess.run(install, check=True)
    tokens = []
    for program in (ONE_LINE, ASYNCIO):
        run = subprocess.run(
            [python, "-W", "error", "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        assert run.stderr == ""
        tokens.append(int(run.stdout))
    assert 0 < tokens[0] < tokens[1]
