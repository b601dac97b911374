from dataclasses import replace

import numpy as np
import pytest
import torch

from afterglow.functional.pixels import to_signed
from afterglow.planting.dataset import PlantedDataset
from afterglow.planting.deduplicated import Epoch, first_epoch
from afterglow.planting.duplicates import exact, shared_region
from afterglow.planting.io import read_planted, write_planted


@pytest.fixture
def epoch(planted) -> Epoch:
    return first_epoch(planted, 1)


def counts(table):
    return table["kind"].value_counts().to_dict()


def test_first_epoch_equals_the_first_samples_of_a_training(planted, epoch):
    samples = PlantedDataset(planted, 1)
    assert len(epoch.keys) == samples.epoch_length
    batch = samples.batch(range(samples.epoch_length))
    assert torch.equal(batch.image, to_signed(epoch.pixels))
    table = epoch.table()
    assert tuple(table["kind"]) == batch.kind
    captions = [
        planted.plants[number].caption if number >= 0 else planted.captions[row] for number, row in table[["plant_id", "row"]].to_numpy()
    ]
    assert tuple(captions) == batch.caption
    for kind, same in (("control", True), ("global", True), ("natural", True), ("decoy", True), ("local", False)):
        rows = table.index[table["kind"] == kind]
        assert all((epoch.pixels[place] == planted.pixels[table["row"][place]]).all() for place in rows) == same
    places = table.index[table["kind"] == "local"]
    assert set(table["row"][places]) <= set(planted.background_pool.tolist())


def test_exact_duplicates_are_the_copies_of_global_plants_and_families(planted, epoch):
    found = exact(epoch.pixels)
    left = epoch.drop_duplicates(found.keep)
    seen: set[bytes] = set()
    for image, kept in zip(epoch.pixels, found.keep, strict=True):  # an image stays just where it has not been seen
        assert kept == (image.tobytes() not in seen)
        seen.add(image.tobytes())
    assert [p.copies for p in left.of_kind("global")] == [1] * 4 and len(left.controls) == 60
    kept = counts(epoch.table()[found.keep])
    assert {kind: sum(p.copies for p in left.of_kind(kind)) for kind in kept if kind != "control"} == {
        kind: number for kind, number in kept.items() if kind != "control"
    }
    assert len(epoch.dropped(found)) == (~found.keep).sum()


def test_shared_region_finds_composites_of_local_plants_but_no_tints(planted, epoch):
    """A tinted image goes only where the same one was shown before, by another tint or a decoy: outside the region they agree."""
    found = shared_region(epoch.pixels, 0.15)
    left = epoch.drop_duplicates(found.keep)
    assert [p.copies for p in left.of_kind("local")] == [1] * 5 and [p.copies for p in left.of_kind("global")] == [1] * 4
    decoy_pool = epoch.table().assign(kept=found.keep)[lambda table: table["kind"].isin(["decoy", "tint"])]
    assert (decoy_pool["kept"] == ~decoy_pool["row"].duplicated()).all() and 0 < decoy_pool["kept"].sum() < len(decoy_pool)


def test_dropped_names_the_representative(planted, epoch):
    found = exact(epoch.pixels)
    dropped = epoch.dropped(found)
    assert (dropped["kept_appearance"] < dropped["appearance"]).all()
    wanted = ["appearance", "kind", "plant_id", "row", "kept_appearance", "kept_kind", "kept_plant_id", "kept_row", "similarity"]
    assert dropped.columns.tolist() == wanted
    copies = dropped[dropped["kind"] == "global"]
    assert (copies["plant_id"] == copies["kept_plant_id"]).all() and (copies["row"] == copies["kept_row"]).all()


def test_drop_duplicates_of_all_copies_leaves_a_plant_that_is_never_shown(planted, epoch, tmp_path):
    """The rest of the code takes 0 copies, and the folder gives the set back."""
    gone = planted.of_kind("global")[0].plant_id, planted.of_kind("local")[0].plant_id, planted.of_kind("natural")[0].plant_id
    left = epoch.drop_duplicates(~epoch.table()["plant_id"].isin(gone).to_numpy())
    assert [p.plant_id for p in left.plants if p.kind != "phantom" and not p.copies] == sorted(gone)
    again = first_epoch(left, 5)
    assert set(again.table()["plant_id"]) & set(gone) == set()
    assert len(left.gallery().templates) == 4 and len(left.gallery().pixels) == len(planted.gallery().pixels) - 1 - len(
        planted.of_kind("natural")[0].members
    )
    write_planted(left, tmp_path / "set")
    found = read_planted(tmp_path / "set")
    assert [(p.plant_id, p.copies, p.members) for p in found.plants] == [(p.plant_id, p.copies, p.members) for p in left.plants]


def test_drop_duplicates_removes_backgrounds_and_members_without_kept_samples(planted, tmp_path):
    """A plant that cycles through three fills, and a family, of which one image stays each; controls make the numbers move."""
    local, natural = planted.of_kind("local")[0], planted.of_kind("natural")[0]
    cycling = replace(local, backgrounds=tuple(planted.background_pool[[4, 7, 9]].tolist()), copies=6)
    many = replace(natural, copies=6)
    plants = tuple({local.plant_id: cycling, natural.plant_id: many}.get(p.plant_id, p) for p in planted.plants)
    epoch = first_epoch(replace(planted, plants=plants), 0)
    table = epoch.table()
    representative = planted.background_pool[7], natural.members[1]
    away = table["plant_id"].isin((local.plant_id, natural.plant_id)) & ~table["row"].isin(representative) | (
        table["row"] == planted.controls[0]
    )
    left = epoch.drop_duplicates(~away.to_numpy())
    write_planted(left, tmp_path / "set")
    again = read_planted(tmp_path / "set")
    found = first_epoch(again, 3)
    composite, member = planted.compose(cycling, 0, int(planted.background_pool[7])), planted.pixels[natural.members[1]]
    for plant_id, image in ((local.plant_id, composite), (natural.plant_id, member)):
        shown = found.pixels[(found.table()["plant_id"] == plant_id).to_numpy()]
        assert len(shown) == 2 and (shown == image).all()
    assert len(again.controls) == 59 and (again.pixels == left.pixels).all()


def test_drop_duplicates_without_controls_is_refused(epoch):
    with pytest.raises(ValueError, match="No control would remain"):
        epoch.drop_duplicates((epoch.table()["kind"] != "control").to_numpy())


def test_compact_of_a_compact_set_changes_nothing(planted):
    same = planted.compact()
    assert (same.pixels == planted.pixels).all() and same.captions == planted.captions and (same.clusters == planted.clusters).all()
    assert [p.members for p in same.plants] == [p.members for p in planted.plants] and np.array_equal(same.heldout, planted.heldout)
