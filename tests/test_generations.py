import dataclasses
import json

import datasets
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from afterglow.attention_names import ATTENTION_COLUMNS
from afterglow.errors import AfterglowError
from afterglow.generations import Generations, Neighbors

LAYERS = ("down_blocks.0.attentions.0.transformer_blocks.0.attn2", "mid_block.attentions.0.transformer_blocks.0.attn2")


def generations(count=3, steps=4, seed=0):
    """Every field, each with values of its own."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.rand(*shape, generator=generator)

    def images():
        return torch.randint(256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)

    def neighbors():
        return Neighbors(torch.randint(99, (count, 51), generator=generator), random(count, 51))

    return Generations(
        images=images(),
        caption=tuple(f"a “image” nº {seed}.{row}" for row in range(count)),
        seed=torch.arange(count) + 10 * seed,
        timesteps=torch.tensor([999, 749, 499, 249][:steps]),
        kind=("local", "tint", "control")[:count],
        shape=("blob", "left half", "whole")[:count],
        plant_id=torch.arange(count) + 100 * seed,
        prompt_length=torch.arange(count) + 3,
        references=images(),
        eval_mask=random(count, 1, 8, 8) > 0.5,
        region=random(count, 1, 8, 8) > 0.5,
        guidance=random(steps, count, 3, 8, 8).half(),
        guidance_rms=random(steps, count),
        token_attention=random(steps, count, 2, 7).half(),
        end_attention={(step, layer): random(count, 16, len(ATTENTION_COLUMNS)).half() for step in (0, steps - 1) for layer in LAYERS},
        extras={"background_spread": random(count), "a/b": random(count, 2)},
        neighbors=neighbors(),
        provenance={
            "model": "TextConditionalDDPM",
            "steps": steps,
            "scheduler_options": {"timestep_spacing": "trailing"},
            "layers": list(LAYERS),
        },
    )


def flat(found):
    """{path: tensor or plain value} of every field, nested ones too."""
    values = {}
    for item in dataclasses.fields(found):
        value = getattr(found, item.name)
        if isinstance(value, Neighbors):
            value = vars(value)
        if isinstance(value, dict) and item.name != "provenance":
            values |= {(item.name, key): part for key, part in value.items()}
        else:
            values[item.name] = value
    return values


def same(a, b):
    left, right = flat(a), flat(b)
    assert set(left) == set(right)
    for name, value in left.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == right[name].dtype, name
            assert torch.equal(value, right[name]), name
        else:
            assert value == right[name], name
    return True


def test_every_field_survives_a_folder(tmp_path):
    whole = generations()
    assert all(value is not None and len(value) for value in flat(whole).values())
    whole.save(tmp_path / "new" / "folder")
    assert same(Generations.load(tmp_path / "new" / "folder"), whole)


def test_what_was_not_captured_stays_absent(tmp_path):
    bare = Generations(images=generations().images, caption=("a", "b", "c"), seed=torch.arange(3), timesteps=torch.tensor([9, 4]))
    bare.save(tmp_path)
    assert same(Generations.load(tmp_path), bare)
    assert bare.guidance is None and bare.neighbors is None and bare.layers == []


def test_the_folder_is_readable_without_afterglow(tmp_path):
    whole = generations()
    whole.save(tmp_path)
    table = datasets.Dataset.load_from_disk(str(tmp_path / "table"))
    assert table.column_names == ["caption", "kind", "shape", "plant_id", "seed", "prompt_length"]
    assert table[1] == {"caption": whole.caption[1], "kind": "tint", "shape": "left half", "plant_id": 1, "seed": 1, "prompt_length": 4}
    tensors = load_file(tmp_path / "tensors.safetensors")
    np.testing.assert_array_equal(tensors["images"], whole.images.numpy())
    np.testing.assert_array_equal(tensors[f"end_attention/3/{LAYERS[1]}"], whole.end_attention[3, LAYERS[1]].numpy())
    np.testing.assert_array_equal(tensors["neighbors/distances"], whole.neighbors.distances.numpy())
    assert json.loads((tmp_path / "provenance.json").read_text()) == whole.provenance


def test_fields_that_are_one_tensor_and_views_are_written(tmp_path):
    whole = generations()
    mask = whole.eval_mask[:1].expand(3, -1, -1, -1)
    shared = dataclasses.replace(whole, eval_mask=mask, region=mask, images=whole.images.flip(-1).mT)
    shared.save(tmp_path)
    assert same(Generations.load(tmp_path), shared)


@pytest.mark.parametrize("name", ["table", "tensors.safetensors", "provenance.json"])
def test_a_missing_file_is_named(tmp_path, name):
    generations().save(tmp_path)
    (tmp_path / name).rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=f"no generations in .*: {name} is missing"):
        Generations.load(tmp_path)


@pytest.mark.parametrize("rows", [[2, 0], slice(1, None), torch.tensor([1]), torch.tensor([True, False, True])])
def test_some_of_the_generations(rows):
    whole = generations()
    numbers = np.arange(3)[rows.numpy() if isinstance(rows, torch.Tensor) else rows]
    some = whole[rows]
    assert len(some) == len(numbers)
    for name, value in flat(some).items():
        before = flat(whole)[name]
        field = name[0] if isinstance(name, tuple) else name
        if field in ("timesteps", "provenance"):
            assert value is before
        elif field in ("caption", "kind", "shape"):
            assert value == tuple(before[number] for number in numbers)
        elif field in ("guidance", "guidance_rms", "token_attention"):
            np.testing.assert_array_equal(value.numpy(), before.numpy()[:, numbers])
        else:
            np.testing.assert_array_equal(value.numpy(), before.numpy()[numbers])


def test_cat_undoes_slicing_and_keeps_the_order():
    whole = generations()
    assert same(Generations.cat([whole[:1], whole[1:]]), whole)
    assert same(Generations.cat([whole[[2]], whole[[0]], whole[[1]]]), whole[[2, 0, 1]])
    two = Generations.cat([generations(seed=0), generations(seed=1)])
    assert same(two[3:], generations(seed=1)) and len(two) == 6


def test_cat_of_bare_generations_leaves_the_absent_absent():
    bare = Generations(images=generations().images, caption=("a", "b", "c"), seed=torch.arange(3), timesteps=torch.tensor([9, 4]))
    both = Generations.cat([bare, bare])
    assert len(both) == 6 and both.guidance is None and both.end_attention is None and both.kind == () and both.timesteps.tolist() == [9, 4]


def test_map_reaches_every_tensor_that_counts_generations():
    whole = generations()
    seen = []

    def change(tensor, dim):
        assert tensor.shape[dim] == 3
        seen.append(id(tensor))
        return tensor.flip(dim)

    turned = whole.map(change)
    tensors = {id(value) for name, value in flat(whole).items() if isinstance(value, torch.Tensor) and name != "timesteps"}
    assert set(seen) == tensors and len(seen) == len(tensors)
    names = {name: getattr(whole, name) for name in ("caption", "kind", "shape")}
    assert same(turned, dataclasses.replace(whole[[2, 1, 0]], **names))  # strings are not its business


def test_layers_are_named_once_and_in_their_order():
    assert generations().layers == list(LAYERS)


def test_generations_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        generations().seed = torch.zeros(3)


@pytest.mark.parametrize("name", ["tensors.safetensors", "provenance.json", "table/state.json"])
def test_load_of_a_truncated_file_names_it(tmp_path, name):
    generations().save(tmp_path / "part")
    (tmp_path / "part" / name).write_bytes((tmp_path / "part" / name).read_bytes()[:20])
    with pytest.raises(AfterglowError, match="part.* cannot be read"):
        Generations.load(tmp_path / "part")


def test_save_interrupted_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    generations().save(tmp_path / "part")
    other = generations(seed=1)
    monkeypatch.setattr("afterglow.generations.save", lambda tensors: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        other.save(tmp_path / "part")
    assert same(Generations.load(tmp_path / "part"), generations()) and [path.name for path in tmp_path.iterdir()] == ["part"]
    monkeypatch.undo()
    other.save(tmp_path / "part")
    assert same(Generations.load(tmp_path / "part"), other)
