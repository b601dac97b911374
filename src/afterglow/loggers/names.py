"""What W&B allows as names, and the id of a run folder's W&B run."""

import os
import re
import uuid
from collections.abc import Sequence
from pathlib import Path

from afterglow.cache import atomic_path
from afterglow.errors import AfterglowError

RUN_ID = re.compile(r"[\w.-]{1,64}")


def check_names(project: str, entity: str | None, tags: Sequence[str]) -> None:
    """Raise AfterglowError if W&B does not allow a project, an entity or a tag."""
    for option, name, longest in [("project", project, 128), ("entity", entity or "any", 128), *(("tags", tag, 64) for tag in tags)]:
        if not 0 < len(name) <= longest:
            raise AfterglowError(f"--wandb.{option}: '{name[:80]}' has {len(name)} characters; W&B allows 1 to {longest}.")
        if option != "tags" and (wrong := re.search(r"[/\\#?%:\s]" if option == "entity" else r"[/\\#?%:]", name)):
            raise AfterglowError(f"--wandb.{option}: '{name[:80]}' contains '{wrong.group()}', which W&B does not allow.")


def run_id(folder: Path) -> str:
    """Return the id of the run that is recorded in a wandb folder; an empty or damaged id is replaced by that of the recorded run."""
    file = folder / "run_id"
    text = file.read_text(encoding="utf-8", errors="replace").strip() if file.is_file() else ""
    if RUN_ID.fullmatch(text):
        return text
    recorded = [path.name.split("-", 3)[-1] for path in sorted(folder.glob("offline-run-*-*"))]
    text = recorded[-1] if recorded else os.environ.get("WANDB_RUN_ID") or uuid.uuid4().hex[:8]
    with atomic_path(file) as path:
        path.write_text(text, encoding="utf-8")
    return text
