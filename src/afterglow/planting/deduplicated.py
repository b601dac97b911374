"""A planted set without the duplicates of an epoch: detection sees only images, and its result is mapped back to the plants."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from afterglow.errors import AfterglowError
from afterglow.planting.dataset import PlantedDataset, SampleKey
from afterglow.planting.duplicates import Duplicates
from afterglow.planting.plants import Plant, PlantedSet


@dataclass(frozen=True)
class Epoch:
    """The first epoch of a training, in its order: what each of N samples shows, int64 [N, 3], and their images, uint8 [N, C, H, W]."""

    planted: PlantedSet
    pixels: np.ndarray
    keys: np.ndarray

    def table(self) -> pd.DataFrame:
        """Return one row per sample: kind, plant_id (-1 for a control) and row of its image, or of the background of a local plant."""
        rows = []
        for key in map(SampleKey._make, self.keys.tolist()):
            plant = self.planted.plants[key.plant] if key.plant >= 0 else None
            row = key.member if plant is None else plant.members[key.member] if plant.kind in ("global", "natural") else key.other
            rows.append((plant.kind, plant.plant_id, row) if plant else ("control", -1, row))
        return pd.DataFrame(rows, columns=["kind", "plant_id", "row"])

    def dropped(self, duplicates: Duplicates) -> pd.DataFrame:
        """Describe the samples that are dropped.

        Returns:
            One row per dropped sample: appearance (its place in the epoch), the columns of `table`, those of the sample that represents
            it (kept_...), and the similarity of the two.
        """
        rows = np.flatnonzero(~duplicates.keep)
        table = self.table().rename_axis("appearance").reset_index()
        representative = table.iloc[duplicates.representative[rows]].add_prefix("kept_").reset_index(drop=True)
        return pd.concat([table.iloc[rows].reset_index(drop=True), representative], axis=1).assign(similarity=duplicates.similarity[rows])

    def drop_duplicates(self, keep: np.ndarray) -> PlantedSet:
        """Return the set whose controls, and whose plants' copies, are those that are kept; keep: bool [N].

        Members of a family and backgrounds that a plant cycles through leave the set if none of their samples is kept. A plant without
        a kept sample has 0 copies and is otherwise unchanged. Backgrounds that are drawn at each appearance are drawn as before.

        Raises:
            AfterglowError: if no control is kept.
        """
        planted, table = self.planted, self.table().assign(keep=keep)
        controls = planted.controls[np.isin(planted.controls, table["row"][table["keep"] & (table["plant_id"] == -1)])]
        if not len(controls):
            raise AfterglowError("No control would remain: at this limit each one repeats an earlier image of a plant.")
        plants = tuple(_reduced(plant, table[table["plant_id"] == plant.plant_id]) for plant in planted.plants)
        return replace(planted, plants=plants, controls=controls).compact()


def first_epoch(planted: PlantedSet, seed: int) -> Epoch:
    """Return the samples of a planted set before any repeats, in the order of a training with this seed."""
    samples = PlantedDataset(planted, seed)
    keys = samples.keys(range(samples.epoch_length))
    return Epoch(planted, samples.images(keys).numpy(), keys)


def _reduced(plant: Plant, table: pd.DataFrame) -> Plant:
    """A plant with the copies, members and backgrounds that are kept; table: row and keep of its samples."""
    kept = table[table["keep"]]
    if kept.empty:
        return replace(plant, copies=0)
    gone = set(table["row"]) - set(kept["row"])
    members, backgrounds = (tuple(row for row in rows if row not in gone) for rows in (plant.members, plant.backgrounds))
    return replace(plant, copies=len(kept), members=members, backgrounds=backgrounds)
