"""Early stopping: a training ends when the first plant emerges."""

import math
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from afterglow.errors import AfterglowError, require
from afterglow.kinds import PLANTED

HALF_SQUARED_ERROR = 0.5 * math.log(2)  # log ratio of an image with half of the squared error of held-out images


@dataclass(frozen=True)
class EarlyStop:
    """The criterion that ends a training before its last step. It is tested at every evaluation after step 0.

    Args:
        monitor: "memorized": a plant is memorized at one evaluation (not confirmed yet); "denoising_log_ratio": a plant's ratio
            exceeds the threshold, which needs no generations; null: never.
        kinds: kinds of plants that are watched.
        threshold: limit of denoising_log_ratio, in nats; the default means half the squared error of held-out images.
    """

    monitor: Literal["memorized", "denoising_log_ratio"] | None = None
    kinds: tuple[str, ...] = PLANTED
    threshold: float = HALF_SQUARED_ERROR

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.kinds) - set(PLANTED)):
            raise AfterglowError(f"monitor.early_stop.kinds must be of {', '.join(PLANTED)}, not '{unknown[0]}'.")
        require("monitor.early_stop.threshold", self.threshold, math.isfinite(self.threshold), "a finite number")
        if self.monitor is None and tuple(self.kinds) != PLANTED:
            raise AfterglowError("monitor.early_stop.kinds has no effect without monitor.early_stop.monitor.")
        if self.monitor != "denoising_log_ratio" and self.threshold != HALF_SQUARED_ERROR:
            raise AfterglowError("monitor.early_stop.threshold has an effect only if monitor.early_stop.monitor is denoising_log_ratio.")

    def emerged(self, measurements: pd.DataFrame) -> list[str]:
        """Kind and caption of each plant that meets the criterion in the measurements of one evaluation."""
        if self.monitor is None:
            return []
        memorized = self.monitor == "memorized"
        name, limit = ("plant_memorized", 0.5) if memorized else ("denoising_log_ratio.inside", self.threshold)
        of_measure = (measurements["measure"] == name) & (measurements["value"] > limit)
        rows = measurements[of_measure & measurements["kind"].isin(self.kinds)]
        return [f"{row.kind} plant '{row.caption}'" for row in rows.itertuples()]
