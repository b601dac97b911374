"""A planted set without the duplicates of an epoch. What finds them sees images; what was planted is known again only afterwards."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from afterglow.planting.dataset import PlantedDataset, SampleKey
from afterglow.planting.duplicates import Duplicates
from afterglow.planting.plants import Plant, PlantedSet


@dataclass(frozen=True)
class Epoch:
    """The first epoch of a training, in its order. pixels: uint8 [N, C, H, W]; shown: what each of the N appearances is."""

    planted: PlantedSet
    pixels: np.ndarray
    shown: tuple[SampleKey, ...]

    def table(self) -> pd.DataFrame:
        """A row an appearance: kind, plant_id (-1 = a control) and row, of its image: a control's or plant's own, else what fills it."""
        plants = self.planted.plants
        kinds = ["control" if which < 0 else plants[which].kind for which, _, _ in self.shown]
        numbers = [-1 if which < 0 else plants[which].plant_id for which, _, _ in self.shown]
        return pd.DataFrame({"kind": kinds, "plant_id": numbers, "row": [self._row(shown) for shown in self.shown]})

    def dropped(self, found: Duplicates) -> pd.DataFrame:
        """A row a dropped appearance: table's columns, those of the appearance that stays (kept_...), and the likeness of the two.

        appearance, kept_appearance: their places in the epoch.
        """
        away = np.flatnonzero(~found.kept)
        table = self.table().rename_axis("appearance").reset_index()
        representative = table.iloc[found.representative[away]].add_prefix("kept_").reset_index(drop=True)
        return pd.concat([table.iloc[away].reset_index(drop=True), representative], axis=1).assign(similarity=found.similarity[away])

    def without(self, kept: np.ndarray) -> PlantedSet:
        """The set whose controls, and whose plants' numbers of appearances, are those that stay. kept: bool [N].

        Members of a family and fills that a plant cycles through go where none of their appearances stays; a plant of which nothing
        stays has 0 copies, and is otherwise as it was. Fresh fills are drawn afresh in every epoch, as before. Raises ValueError where
        no control stays.
        """
        planted, shown = self.planted, self.table().assign(kept=kept)
        controls = planted.controls[np.isin(planted.controls, shown["row"][shown["kept"] & (shown["plant_id"] == -1)])]
        if not len(controls):
            raise ValueError("No control would stay: every one repeats an earlier image of a plant at this limit.")
        plants = tuple(_left(plant, shown[shown["plant_id"] == plant.plant_id]) for plant in planted.plants)
        return compacted(replace(planted, plants=plants, controls=controls))

    def _row(self, shown: SampleKey) -> int:
        which, member, other = shown
        if which < 0:
            return member
        plant = self.planted.plants[which]
        return plant.members[member] if plant.kind in ("global", "natural") else other


def first_epoch(planted: PlantedSet, seed: int) -> Epoch:
    """What a training of this seed shows of a planted set before anything comes again."""
    samples = PlantedDataset(planted, seed)
    shown = tuple(samples.key(index) for index in range(samples.epoch_length))
    return Epoch(planted, np.stack([samples.pixels(what) for what in shown]), shown)


def _left(plant: Plant, shown: pd.DataFrame) -> Plant:
    """What is left of a plant; shown: row and kept of its appearances."""
    staying = shown[shown["kept"]]
    if staying.empty:
        return replace(plant, copies=0)
    gone = set(shown["row"]) - set(staying["row"])
    members, backgrounds = (tuple(row for row in had if row not in gone) for had in (plant.members, plant.backgrounds))
    return replace(plant, copies=len(staying), members=members, backgrounds=backgrounds)


def compacted(planted: PlantedSet) -> PlantedSet:
    """The same set with only the images that have a part to play, numbered in the order in which a folder holds them."""

    def numbered(rows: Iterable[int]) -> tuple[int, ...]:
        return tuple(place[row] for row in rows)

    def moved(rows: np.ndarray) -> np.ndarray:
        return np.array(numbered(rows.tolist()), dtype=np.int64)

    members = [row for plant in planted.plants for row in plant.members]
    splits = np.concatenate([planted.controls, planted.background_pool, planted.decoy_pool, planted.heldout])
    rows = list(dict.fromkeys([*members, *splits.tolist()]))
    place = {row: number for number, row in enumerate(rows)}
    return replace(
        planted,
        pixels=planted.pixels[rows],
        captions=tuple(planted.captions[row] for row in rows),
        clusters=planted.clusters[rows],
        plants=tuple(replace(plant, members=numbered(plant.members), backgrounds=numbered(plant.backgrounds)) for plant in planted.plants),
        controls=moved(planted.controls),
        background_pool=moved(planted.background_pool),
        decoy_pool=moved(planted.decoy_pool),
        heldout=moved(planted.heldout),
    )
