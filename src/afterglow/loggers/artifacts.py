"""Artifacts of a W&B run: what it was made from, and what it made."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

INPUTS = {"plants": ("dataset", ["plants"]), "measurements": ("measurements", ["measurements.parquet", "emergence.json"])}


def use_inputs(run: Any, folder: Path, *names: str) -> None:
    """Record what a run was made from: artifacts of a run folder, names of INPUTS."""
    for name in names:
        kind, files = INPUTS[name]
        paths = [path for file in files if (path := folder / file).exists()]
        if paths:
            # what `use_artifact` calls; that function refuses offline runs, although their upload keeps the lineage
            run._log_artifact(_artifact(run, name, kind, paths), aliases=["latest", run.id], is_user_created=True, use_after_commit=True)


def log_files(run: Any, name: str, kind: str, paths: Sequence[Path]) -> None:
    """Log files and folders as the artifact RUN-NAME."""
    run.log_artifact(_artifact(run, name, kind, paths), aliases=["latest", run.id])


def _artifact(run: Any, name: str, kind: str, paths: Sequence[Path]) -> Any:
    """Files of a folder are not copied."""
    import wandb

    artifact = wandb.Artifact(f"{re.sub(r'[^a-zA-Z0-9_.-]', '_', str(run.name))}-{name}", kind)
    for path in paths:
        for file in (file for file in sorted(path.rglob("*")) if file.is_file()):
            artifact.add_file(str(file), name=str(file.relative_to(path)), policy="immutable")
        if path.is_file():
            artifact.add_file(str(path))
    return artifact
