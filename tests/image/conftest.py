"""The image, built here without a registry and run by a Docker of its own; or one that is named.

Without an image that is named all of this needs root, the network and some packages; where one is missing the
tests are skipped and say so.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.image.docker import Docker
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TARGETS: Final = ("service", "snakemake")
_PROGRAMS: Final = {
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    "dockerd": "docker.io",
    "docker": "docker.io",
    "ip": "iproute2",
    "git": "git",
}
_BUILD: Final = Path(__file__).with_name("build.sh")
_BRIDGE: Final = "snakeline-test0"
_ADDRESS: Final = "172.31.249.1/24"


def pytest_addoption(parser: pytest.Parser) -> None:
    for target in TARGETS:
        parser.addoption(
            f"--{target}-image", help=f"test this image, in the Docker that is there, as {target}"
        )
    parser.addoption("--image-work", type=Path, help="build in this folder and leave it there")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Building takes minutes, and belongs to no single test."""
    for item in items:
        if item.get_closest_marker("image") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def images(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Docker, dict[str, str]]]:
    """A Docker, and the image of each target in it."""
    environment = dict(os.environ)  # noqa: TID251 - handed on to Docker's command
    named = {target: request.config.getoption(f"--{target}-image", None) for target in TARGETS}
    if all(named.values()):
        yield Docker(environment), {target: str(image) for target, image in named.items()}
        return
    if os.geteuid() != 0 or not _has_powers():
        pytest.skip("the image can be built and run by root alone, who may mount and make networks")
    missing = sorted({package for program, package in _PROGRAMS.items() if not shutil.which(program)})
    if missing:
        pytest.skip(f"the image cannot be built and run without these packages: {' '.join(missing)}")
    kept = request.config.getoption("--image-work", None)
    work = Path(kept) if kept else tmp_path_factory.mktemp("image")
    work.mkdir(exist_ok=True)
    try:
        if not all((work / f"{target}.tar").exists() for target in TARGETS):
            _build(work)
        with _daemon(work / "docker") as host:
            docker = Docker(environment | {"DOCKER_HOST": host})
            for target in TARGETS:
                docker("load", "--input", str(work / f"{target}.tar"), timeout_s=300)
            yield docker, {target: f"snakeline:{target}" for target in TARGETS}
    finally:
        if not kept:
            # A hundred thousand files: by far quicker than Python is.
            subprocess.run(["rm", "-rf", "--one-file-system", str(work)], check=False)


def _has_powers() -> bool:
    """In most containers root has not: CAP_NET_ADMIN and CAP_SYS_ADMIN (capabilities(7))."""
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    return all(effective >> number & 1 for number in (12, 21))


def _build(work: Path) -> None:
    with (work / "build.log").open("wb") as log:
        code = subprocess.call(
            ["bash", str(_BUILD), str(work)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    told = (work / "build.log").read_text(errors="replace")
    if code and not (work / "base.made").exists():
        pytest.skip(f"no base for the image could be made here: {told.strip()[-300:]}")
    assert code == 0, f"the image could not be built: {told[-4000:]}"
    for line in told.splitlines():
        if line.startswith("build.sh: "):
            sys.stderr.write(f"{line}\n")


@contextmanager
def _daemon(folder: Path) -> Iterator[str]:
    """A Docker of our own, with a bridge of its own and no change to the machine's firewall; its address."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["ip", "link", "add", _BRIDGE, "type", "bridge"], check=False, capture_output=True)
    subprocess.run(["ip", "address", "add", _ADDRESS, "dev", _BRIDGE], check=False, capture_output=True)
    subprocess.run(["ip", "link", "set", _BRIDGE, "up"], check=True)
    # The path of a socket is short: a folder of pytest's may not be.
    host = f"unix:///run/snakeline-test-{os.getpid()}.sock"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "dockerd",
                *("--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")),
                *("--host", host, "--pidfile", str(folder / "pid")),
                # Where a containerd runs already it is asked: it is to keep our containers apart.
                *("--containerd-namespace", "snakeline-test"),
                *("--containerd-plugins-namespace", "snakeline-test-plugins"),
                *("--bridge", _BRIDGE, "--iptables=false", "--ip6tables=false", "--ip-forward=false"),
                *("--exec-opt", "native.cgroupdriver=cgroupfs"),
                *("--default-ulimit", "nofile=16384:16384"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def answers() -> bool:
        assert process.poll() is None, f"dockerd has ended: {(folder / 'log').read_text()[-2000:]}"
        done = subprocess.run(["docker", "--host", host, "version"], check=False, capture_output=True)
        return done.returncode == 0

    try:
        wait_until(answers, timeout_s=60, what="dockerd to answer")
        yield host
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        subprocess.run(["ip", "link", "delete", _BRIDGE], check=False, capture_output=True)


@pytest.fixture(scope="session")
def docker(images: tuple[Docker, dict[str, str]]) -> Docker:
    return images[0]


@pytest.fixture(scope="session", params=TARGETS)
def image(request: pytest.FixtureRequest, images: tuple[Docker, dict[str, str]]) -> str:
    """Each target in turn."""
    return images[1][request.param]


@pytest.fixture(scope="session")
def service_image(images: tuple[Docker, dict[str, str]]) -> str:
    return images[1]["service"]


@pytest.fixture(scope="session")
def snakemake_image(images: tuple[Docker, dict[str, str]]) -> str:
    return images[1]["snakemake"]


@pytest.fixture
def new_volume(docker: Docker) -> Iterator[Callable[[], str]]:
    """Makes volumes, which are removed at the end."""
    made: list[str] = []

    def make() -> str:
        made.append(docker("volume", "create").strip())
        return made[-1]

    yield make
    if made:
        docker("volume", "rm", "--force", *made)


@pytest.fixture
def volume(new_volume: Callable[[], str]) -> str:
    return new_volume()
