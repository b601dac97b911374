"""Copies that remain after a knock-out, by both rules (docs/methods.md#knock-out)."""

import pandas as pd

from afterglow.functional.distances import COPY_LIMITS


def count_copies(rows: pd.DataFrame) -> pd.DataFrame:
    """Generations of each plant that are copies, for each variant of a knock-out.

    Args:
        rows: columns knockout, kind, plant_id, measure and value, as knockout.parquet has them.

    Returns:
        One row per rule, variant and plant: rule (a name of COPY_LIMITS), knockout, kind, plant_id, copies, generations.
    """
    tables = []
    for rule, limit in COPY_LIMITS.items():
        own = rows[rows["measure"] == rule]
        copied = (own["value"] < limit).groupby([own["knockout"], own["kind"], own["plant_id"]], sort=False)
        tables.append(copied.agg(copies="sum", generations="size").reset_index().assign(rule=rule))
    return pd.concat(tables, ignore_index=True)
