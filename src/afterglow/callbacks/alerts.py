import math
from typing import Any

import pandas as pd

from afterglow.analysis.emergence_table import emergence_intervals

ALERTED = ("global", "local")


def alert_first_emerged(logger: Any, measurements: pd.DataFrame, step: int) -> None:
    """Send one alert for each kind whose first plant is confirmed at this evaluation.

    Args:
        logger: RunLogger.
        measurements: rows of all evaluations up to this step.
        step: training step of the evaluation.
    """
    before, now = _emerged(measurements[measurements["step"] < step]), _emerged(measurements)
    for kind in ALERTED:
        if kind in now and kind not in before:
            caption, lower, upper = now[kind]
            text = f"'{caption}' emerged between steps {lower:.0f} and {upper:.0f}; confirmed at step {step}."
            logger.alert(f"First {kind} plant memorized", text)


def _emerged(measurements: pd.DataFrame) -> dict[str, tuple[str, float, float]]:
    """{kind: caption and interval of the plant that emerged first}."""
    plants = measurements.drop_duplicates("plant_id").set_index("plant_id")
    emerged = [(i.upper, i.lower, number) for number, i in emergence_intervals(measurements).items() if i.upper < math.inf]
    first: dict[str, tuple[str, float, float]] = {}
    for upper, lower, number in sorted(emerged):
        first.setdefault(str(plants["kind"][number]), (str(plants["caption"][number]), lower, upper))
    return first
