"""What a stranger meets first: the lock, the Makefile, CI's entry and the image."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
NETWORK = ("PIP_", "UV_", "SSL_", "HTTP_", "HTTPS_", "ALL_", "NO_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
INTERPRETER = Path(getattr(sys, "_base_executable", sys.executable)).parent  # stands for the Python of the base image


# The lock


def pins(lock: str) -> list[Requirement]:
    return [Requirement(line) for line in lock.splitlines() if line.strip()]


def lock_faults(lock: str, dependencies: list[str]) -> list[str]:
    """Dependencies that the lock does not pin, for this Python, within their range."""
    here = {pin.name.lower(): next(iter(pin.specifier)).version for pin in pins(lock) if pin.marker is None or pin.marker.evaluate()}
    wanted = [Requirement(text) for text in dependencies]
    return [
        str(each)
        for each in wanted
        if each.name.lower() not in here or not each.specifier.contains(here[each.name.lower()], prereleases=True)
    ]


def test_lock_pins_every_dependency_within_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    dependencies = project["dependencies"] + project["optional-dependencies"]["dev"]
    assert lock_faults((ROOT / "requirements.lock").read_text(), dependencies) == []


def test_lock_check_can_fail() -> None:
    assert lock_faults("numpy==1.26.4\n", ["numpy>=2", "torch>=2.11"]) == ["numpy>=2", "torch>=2.11"]


def test_lock_names_no_host() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert not [line for line in lock.splitlines() if any(word in line for word in ("http:", "https:", "@ ", "file:", "--"))]
    assert all([each.operator for each in pin.specifier] == ["=="] and pin.url is None for pin in pins(lock))


# The Makefile and CI


def make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}  # we may run inside `make test`
    return subprocess.run(["make", *arguments], cwd=folder, env=inherited, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("target", "commands"),
    [
        ("demo", ["uv pip install", "accelerate launch --quiet --num_processes 1", "train.py --resume auto"]),
        ("test", ["uv pip install", ".venv/bin/pytest"]),
        ("lint", ["ruff check", "ruff format --check", ".venv/bin/mypy"]),
        ("format", ["ruff format", "ruff check --fix"]),
        ("lock", ["uv pip compile pyproject.toml", "--output-file requirements.lock"]),
    ],
)
def test_targets_say_what_they_run(target: str, commands: list[str], tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):  # a fresh clone, so that nothing counts as installed
        shutil.copy(ROOT / name, tmp_path)
    plan = make("-n", target, folder=tmp_path)
    assert plan.returncode == 0, plan.stderr
    assert [command for command in commands if command not in plan.stdout] == []


def test_readme_shows_the_targets() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme and "make test" in readme


def test_old_python_is_refused_in_one_sentence(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    old = tmp_path / "old-python"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 10, 14)\n$2"\n')
    old.chmod(0o755)
    refused = make(f"PYTHON={old}", ".venv/bin/uv", folder=tmp_path)
    assert refused.returncode != 0 and refused.stderr.startswith("Afterglow needs Python 3.11 or newer")
    assert not (tmp_path / ".venv").exists()


def test_ci_lints_then_tests_with_the_images_beside_the_clone(tmp_path: Path) -> None:
    run, data, commands = tmp_path / "clone/.ci/run", tmp_path / "shared/data", tmp_path / "bin"
    for folder in (run.parent, data, commands, tmp_path / "temporary"):
        folder.mkdir(parents=True)
    shutil.copy(ROOT / ".ci/run", run)
    (data / "prompts.jsonl").write_text("{}\n")
    (data / "README.md").write_text("not data")
    (tmp_path / "cifar").mkdir()
    shutil.make_archive(str(data / "cifar"), "xztar", tmp_path, "cifar")
    stand_in = commands / "make"
    stand_in.write_text('#!/bin/sh\necho "make $*:" $(ls "$AFTERGLOW_DATA")\n')
    stand_in.chmod(0o755)

    environment = {"PATH": f"{commands}:{os.environ['PATH']}", "TMPDIR": str(tmp_path / "temporary"), "CI": "true"}
    done = subprocess.run([run], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"make {what}: cifar prompts.jsonl" for what in ("--jobs=2 lint docs", "test")]
    assert not any((tmp_path / "temporary").iterdir()), "the unpacked images stayed behind"


# The image


def instructions(dockerfile: str) -> Iterator[tuple[str, str]]:
    """(instruction, its arguments) of each line, continued lines joined."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.partition(" ")
            yield word, rest.strip()


def copying(rest: str, context: Path) -> str:
    *sources, target = rest.split()
    return " ".join(["cp -R", *(f"{context}/{source}" for source in sources), target])


def image_script(dockerfile: str, context: Path, root: Path) -> str:
    """The Dockerfile as a shell script: work folder under `root`, build arguments from the environment, "$@" to the entry."""
    workdir = next(rest for word, rest in instructions(dockerfile) if word == "WORKDIR")
    translate = {
        "FROM": lambda rest: ":",
        "USER": lambda rest: ":",
        "ARG": lambda rest: 'export {0}="${{{0}-{1}}}"'.format(*rest.split("=", 1)),
        "ENV": lambda rest: f"export {rest}",
        "WORKDIR": lambda rest: f"mkdir -p {rest} && cd {rest}",
        "COPY": lambda rest: copying(rest, context),
        "RUN": lambda rest: rest,
        "ENTRYPOINT": lambda rest: " ".join(["exec", *json.loads(rest), '"$@"']),
    }
    lines = [translate[word](rest.replace(workdir, f"{root}{workdir}")) for word, rest in instructions(dockerfile)]
    return "\n".join(["set -e", *lines, ""])


def empty_environment(home: Path) -> dict[str, str]:
    """A path with a Python on it, and how this machine reaches the registry; uv's cache, which spares fetching gigabytes again."""
    network = {key: value for key, value in os.environ.items() if key.upper().startswith(NETWORK)}
    cache = {"UV_CACHE_DIR": str(Path.home() / ".cache/uv")} | {key: value for key, value in network.items() if key == "UV_CACHE_DIR"}
    path = f"{INTERPRETER}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return network | cache | {"PATH": path, "HOME": str(home), "UV_NO_CACHE": "0"}


@pytest.fixture
def emptied_afterwards(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    shutil.rmtree(tmp_path)  # pytest would keep three of these installations of 6.5 GB


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_image_builds_in_an_empty_environment_and_its_entry_answers(emptied_afterwards: Path) -> None:
    left_out = [line.removeprefix("**/") for line in (ROOT / ".dockerignore").read_text().split()]
    context, root, home = (emptied_afterwards / name for name in ("context", "root", "home"))
    shutil.copytree(ROOT, context, ignore=shutil.ignore_patterns(*left_out))
    home.mkdir()
    script = image_script((ROOT / "Dockerfile").read_text(), context, root)
    built = subprocess.run(["sh", "-c", script, "image", "--help"], env=empty_environment(home), cwd=home, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-4000:]
    assert "usage: afterglow train" in built.stdout and "--ckpt_path" in built.stdout


def test_image_runs_as_nobody_special() -> None:
    steps = list(instructions((ROOT / "Dockerfile").read_text()))
    assert dict(steps)["USER"] not in ("0", "root")
    assert json.loads(dict(steps)["ENTRYPOINT"]) == ["accelerate", "launch", "--quiet", "train.py"]
    assert [word for word, _ in steps].index("USER") > max(place for place, (word, _) in enumerate(steps) if word == "RUN")


def test_image_script_honors_the_instructions(tmp_path: Path) -> None:
    (tmp_path / "greeting").write_text("hello")
    dockerfile = """
        ARG WHO=nobody
        FROM scratch
        WORKDIR /app
        COPY greeting ./
        # a comment
        RUN cat greeting && \\
            echo " ${WHO} at $PWD"
        ENV MARK=/app/x
        USER 1
        ENTRYPOINT ["echo", "$MARK"]
    """.replace("\n        ", "\n")
    script = image_script(dockerfile, tmp_path, tmp_path / "image")
    done = subprocess.run(
        ["sh", "-c", script, "image", "--help"], env={"PATH": os.environ["PATH"], "WHO": "you"}, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == [f"hello you at {tmp_path}/image/app", f"{tmp_path}/image/app/x --help"]
    failing = subprocess.run(
        ["sh", "-c", image_script("WORKDIR /app\nRUN false\nRUN true", tmp_path, tmp_path / "image")], env={"PATH": os.environ["PATH"]}
    )
    assert failing.returncode != 0
