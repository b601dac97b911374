"""Early stopping: a training that ends when the first plant emerges."""

import math
from dataclasses import dataclass
from typing import Literal

import pandas as pd

KINDS = ("global", "local", "natural")
HALF = 0.5 * math.log(2)  # the advantage of an image with half of the squared error that unseen images have


@dataclass(frozen=True)
class EarlyStop:
    """What ends a training before its last step; looked for at every probe but that of step 0, where nothing was trained.

    Args:
        monitor: memorized, when a plant is (by the generations of an inner probe, not confirmed yet); advantage, when a plant's
            advantage is over the threshold, which needs no generation; null: nothing ends it.
        kinds: of the plants that are watched.
        threshold: of the advantage, in nats of the root mean square error.
    """

    monitor: Literal["memorized", "denoising_log_ratio"] | None = None
    kinds: tuple[str, ...] = KINDS
    threshold: float = HALF

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.kinds) - set(KINDS)):
            raise ValueError(f"A training can stop at plants of the kinds {', '.join(KINDS)}, and not '{unknown[0]}'.")
        if self.monitor is None and tuple(self.kinds) != KINDS:
            raise ValueError("monitor.early_stop.kinds belongs to monitor.early_stop.monitor: here it would do nothing.")
        if self.monitor != "denoising_log_ratio" and self.threshold != HALF:
            raise ValueError(
                "monitor.early_stop.threshold belongs to monitor.early_stop.monitor denoising_log_ratio: here it would do nothing."
            )

    def emerged(self, rows: pd.DataFrame) -> list[str]:
        """Kind and caption of each plant that has emerged by the rows of one probe; none where nothing is looked for."""
        measure, limit = {
            "memorized": ("plant_memorized", 0.5),
            "denoising_log_ratio": ("denoising_log_ratio.inside", self.threshold),
            None: ("", 0),
        }[self.monitor]
        found = rows[(rows["measure"] == measure) & rows["kind"].isin(self.kinds) & (rows["value"] > limit)]
        return [f"{row.kind} plant '{row.caption}'" for row in found.itertuples()]
