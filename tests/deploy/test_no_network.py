"""A deployment where nothing can be downloaded: everything comes from `make wheelhouse`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy.conftest import BIN, ROOT, Deployment

pytestmark = pytest.mark.timeout(900)

# A network of its own with nothing but loopback; for who is not root, with a user of its own, too.
ALONE = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
LOOPBACK = [*ALONE, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "VENV": str(BIN.parent)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheelhouse")
    done = run(ROOT / ".ci" / "wheelhouse", out)
    assert done.returncode == 0, done.stderr
    return out / "wheelhouse.tar"


@pytest.fixture(scope="module")
def wheel(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the built collection has in it: the library needs no build any more."""
    out = tmp_path_factory.mktemp("wheel")
    done = run(BIN / "uv", "build", "--quiet", "--wheel", "--out-dir", out, package)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


def test_hosts_without_a_network_install_from_the_wheelhouse(
    make_deployment: Callable[..., Deployment], wheelhouse: Path, wheel: Path
) -> None:
    if run(*LOOPBACK, "true").returncode != 0:
        pytest.skip("this machine lets nobody have a network of its own (unshare --net)")
    alone = make_deployment(seedcore_package=str(wheel), ray_wheelhouse=str(wheelhouse))
    # Nothing that this machine has downloaded before.
    alone.variables["seedcore_uv_cache"] = str(alone.directory / "cache")
    alone.wrapper = LOOPBACK
    assert run(*LOOPBACK, "ip", "route").stdout == ""

    done = alone.run("deploy").check()

    assert "healthy: " in done.output
    assert len(list((alone.prefix / "cache" / "wheelhouse").glob("ray-*.whl"))) == 1
