"""A network that reads one group of tokens: only the knock-out of this group removes its copies."""

import diffusers
import pytest
import torch

from afterglow.functional.attention import token_groups
from afterglow.models.conditioning import TextConditioning
from afterglow.models.denoiser import Denoiser
from afterglow.sampling.knockout import GROUP_PARTS, KNOCKOUTS, PARTS, KnockOut, caption_means
from afterglow.sampling.loop import Sampler, generate
from afterglow.sampling.recorder import CaptureConfig

NAMES, LENGTH, NUM = "abcdefghijkl", 6, 12
LENGTHS = [3 + row % 3 for row in range(NUM)]  # BOS, one to three words, end token
NOTHING = CaptureConfig(guidance=False, tokens=False, end_steps=())


class OneGroupReader(Denoiser):
    """Every state names its caption (one-hot); the network denoises towards the image that the states of `group` name."""

    has_text = True

    def __init__(self, group: str) -> None:
        super().__init__()
        self.unet = diffusers.UNet2DModel(4, block_out_channels=(4,), norm_num_groups=1, down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",))  # noqa: E501  # fmt: skip
        self.images = torch.rand(NUM, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
        self.group = group

    def latent_shape(self):
        return 3, 4, 4

    def condition(self, captions):
        rows = torch.tensor([NAMES.find(caption) if caption else 0 for caption in captions])
        states = torch.nn.functional.one_hot(rows, NUM).float()[:, None].repeat(1, LENGTH, 1)
        lengths = torch.tensor([LENGTHS[row] for row in rows])
        return TextConditioning(states, torch.ones(len(rows), LENGTH, dtype=torch.bool), lengths)

    def forward(self, noisy, timesteps, condition):
        positions = token_groups(condition.prompt_length, LENGTH)[self.group][..., None]
        weights = (condition.encoder_hidden_states * positions).sum(1) / positions.sum(1)
        clean = torch.einsum("bn,nchw->bchw", weights, self.images)
        alpha = self.scheduler.alphas_cumprod[timesteps.reshape(-1)[:1]]
        return (noisy - alpha.sqrt() * clean) / (1 - alpha).sqrt()


@pytest.mark.parametrize("group", [*PARTS, "end_and_pads"])
def test_copies_vanish_exactly_where_the_group_that_is_read_is_replaced(group):
    model = OneGroupReader(group)
    means = caption_means(model, NAMES)
    shown = model.images.clamp(-1, 1).add(1).mul(127.5)
    for name, groups in KNOCKOUTS.items():
        images = generate(model, list(NAMES), [0] * NUM, Sampler(steps=3), NOTHING, mitigation=KnockOut(groups, means)).images
        copied = (images.float() - shown).abs().flatten(1).amax(1) < 2
        read = set(GROUP_PARTS[group])
        if not read & set(groups):
            assert copied.all(), name
        elif read <= set(groups):
            assert not copied.any(), name


def test_means_are_taken_over_the_captions_that_have_the_group_at_the_position(monkeypatch):
    monkeypatch.setattr("afterglow.sampling.knockout.MIN_CAPTIONS", 4)
    model = OneGroupReader("words")
    means = caption_means(model, NAMES)
    for position, having in ((2, [0, 3, 6, 9]), (3, [1, 4, 7, 10]), (4, [2, 5, 8, 11])):  # of the first end token
        expected = torch.zeros(NUM)
        expected[having] = 1 / 4
        torch.testing.assert_close(means.states["first_end"][position], expected)
    torch.testing.assert_close(means.states["first_end"][5], torch.full((NUM,), 1 / NUM))  # no caption ends there
    torch.testing.assert_close(means.states["bos"][0], torch.full((NUM,), 1 / NUM))


def test_the_share_of_the_caption_is_nothing_for_bos_of_a_causal_encoder(small_captioned):
    captions = [f"{color} {thing}" for color in ("red", "blue", "green", "old") for thing in ("hat", "cup", "house")]
    model = small_captioned()
    means = caption_means(model, captions)
    assert means.caption_share["bos"] < 1e-6 < 0.01 < means.caption_share["words"] < 1
    states, ends = model.condition(captions).encoder_hidden_states, 3
    end = states[:, ends]
    expected = (end - end.mean(0)).square().sum() / end.square().sum()  # every caption has two words
    assert means.caption_share["first_end"] == pytest.approx(expected.item(), rel=1e-4)
    assert caption_means(OneGroupReader("bos"), NAMES).caption_share["bos"] == pytest.approx(1 - 1 / NUM)


def test_a_model_without_captions_is_refused(small_plain):
    with pytest.raises(ValueError, match="DDPM has no captions"):
        caption_means(small_plain(), ["a"])


def test_the_unconditional_half_and_the_first_setup_stay(small_captioned):
    model = small_captioned()
    setup = Sampler(steps=2).setup(model, ["red hat", "b"], [0, 1])
    before = setup.condition.encoder_hidden_states.clone()
    after = KnockOut(PARTS, caption_means(model, [f"word {n}" for n in range(12)]))(model, setup).condition.encoder_hidden_states
    assert torch.equal(setup.condition.encoder_hidden_states, before) and torch.equal(after[:2], before[:2])
    assert not torch.allclose(after[2:, 1], before[2:, 1])
