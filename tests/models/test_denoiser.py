from collections.abc import Callable

import pytest
import torch

from afterglow.models.conditioning import TextConditioning
from afterglow.models.ddpm import DDPM
from afterglow.models.text_ddpm import TextConditionalDDPM
from afterglow.planting.dataset import Batch

Make = Callable[..., DDPM]


def rows(batch: Batch, chosen: slice) -> Batch:
    return Batch(*(getattr(batch, name)[chosen] for name in ("image", "caption", "kind", "index")))


def test_sample_noise_and_timesteps_any_split_depends_on_seed_and_index_only(ddpm: Make, batch: Callable[..., Batch]) -> None:
    model, whole = ddpm(seed=3, cond_drop_prob=0.5), batch(6)
    noise, timesteps, dropped = model.sample_noise_and_timesteps(whole.index, whole.image)
    torch.manual_seed(99)  # the global generator is not used
    for chosen in (slice(0, 2), slice(2, 6), slice(1, 6, 2)):
        part = rows(whole, chosen)
        again = ddpm(seed=3, cond_drop_prob=0.5).sample_noise_and_timesteps(part.index, part.image)
        for one, other in zip((noise, timesteps, dropped), again, strict=True):
            assert torch.equal(one[chosen], other)
    assert not torch.equal(ddpm(seed=4).sample_noise_and_timesteps(whole.index, whole.image)[0], noise)
    assert len({row.sum().item() for row in noise}) == 6


def test_sample_noise_and_timesteps_many_samples_follow_their_distributions(ddpm: Make, batch: Callable[..., Batch]) -> None:
    model, index, clean = ddpm(cond_drop_prob=0.2), torch.arange(2000), torch.zeros(2000, 1, 4, 4)
    noise, timesteps, dropped = model.sample_noise_and_timesteps(index, clean)
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02
    assert timesteps.min() >= 0 and timesteps.max() <= 999 and abs(timesteps.float().mean() - 499.5) < 25
    assert 0.16 < dropped.float().mean() < 0.24
    assert not ddpm().sample_noise_and_timesteps(index, clean)[2].any()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_losses_match_formula(prediction: str, ddpm: Make, batch: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch) -> None:
    """x_t = a x + s e with a^2 = abar, s^2 = 1 - abar; the target is e, or a e - s x."""
    model, some = ddpm(noise_scheduler={"prediction_type": prediction, "beta_schedule": "linear"}), batch(4)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alpha_bar = torch.cumprod(1 - betas, 0)
    noise, timesteps, _ = model.sample_noise_and_timesteps(some.index, some.image)
    seen = {}

    def network(noisy: torch.Tensor, times: torch.Tensor, condition: object) -> torch.Tensor:
        seen.update(noisy=noisy, times=times)
        return 0.3 * noisy

    monkeypatch.setattr(model, "forward", network)
    losses = model.losses(some)
    for row in range(4):
        a, s = alpha_bar[timesteps[row]].sqrt(), (1 - alpha_bar[timesteps[row]]).sqrt()
        clean, eps = some.image[row].double(), noise[row].double()
        noisy = a * clean + s * eps
        target = eps if prediction == "epsilon" else a * eps - s * clean
        assert torch.allclose(seen["noisy"][row].double(), noisy, atol=1e-5) and seen["times"][row] == timesteps[row]
        assert losses[row].item() == pytest.approx(((0.3 * noisy - target) ** 2).mean().item(), rel=1e-4)


def test_losses_of_a_sample_do_not_depend_on_its_batch(caption: Callable[..., TextConditionalDDPM], batch: Callable[..., Batch]) -> None:
    model, whole = caption(cond_drop_prob=0.5).eval(), batch(6)
    with torch.no_grad():
        together = model.losses(whole)
        apart = torch.cat([model.losses(rows(whole, slice(0, 1))), model.losses(rows(whole, slice(1, 6)))])
    assert torch.allclose(together, apart, atol=1e-5)


def test_forward_batch_dropped_caption_is_empty(caption: Callable[..., TextConditionalDDPM], batch: Callable[..., Batch]) -> None:
    model, some = caption(cond_drop_prob=0.5), batch(12)
    encoded: list[str] = []
    original = model.condition
    model.condition = lambda captions: encoded.extend(captions) or original(captions)  # type: ignore[method-assign,func-returns-value]
    model.losses(some)
    dropped = model.sample_noise_and_timesteps(some.index, some.image)[2].tolist()
    assert encoded == ["" if drop else caption for caption, drop in zip(some.caption, dropped, strict=True)]
    assert 0 < sum(dropped) < 12


@pytest.mark.parametrize("timestep", [0, 10, 500, 999])
def test_to_noise_true_velocity_gives_true_noise(timestep: int, ddpm: Make) -> None:
    velocity, epsilon = ddpm(noise_scheduler={"prediction_type": "v_prediction"}), ddpm()
    clean, noise = torch.randn(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)[timestep]
    a, s = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    noisy = a * clean + s * noise
    assert torch.allclose(velocity.to_noise(a * noise - s * clean, noisy, timestep), noise, atol=1e-5)
    assert torch.equal(epsilon.to_noise(noise, noisy, timestep), noise)


def test_to_noise_uses_timestep_of_each_row(ddpm: Make) -> None:
    model = ddpm(noise_scheduler={"prediction_type": "v_prediction"})
    output, noisy = torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    times = [0, 10, 500, 999]
    together = model.to_noise(output, noisy, torch.tensor(times))
    for row, timestep in enumerate(times):
        assert torch.equal(together[row], model.to_noise(output[row : row + 1], noisy[row : row + 1], timestep)[0])


def test_denoiser_invalid_option_raises_error_that_names_it(ddpm: Make, caption: Callable[..., TextConditionalDDPM]) -> None:
    for wrong, sentence in (
        ({"resolution": 7}, "resolution 7 cannot be halved 1 times, which a U-Net of 2 levels requires"),
        (
            {"noise_scheduler": {"prediction_type": "sample"}},
            "prediction_type must be epsilon, v_prediction or flow_.*, not sample",
        ),
        ({"noise_scheduler": {"steps": 5}}, "noise_scheduler: DDPMScheduler has no argument 'steps'"),
        ({"unet": {"blocks": 5}}, "unet: UNet2D.*Model has no argument 'blocks'"),
    ):
        for make in (ddpm, caption):
            with pytest.raises(ValueError, match=sentence):
                make(**wrong)


def test_text_conditioning_cat_restores_indexed_parts() -> None:
    whole = TextConditioning(torch.randn(5, 3, 2), torch.rand(5, 3) < 0.5, torch.arange(5))
    again = TextConditioning.cat([whole[:2], whole[2:]])
    assert all(
        torch.equal(getattr(whole, name), getattr(again, name)) for name in ("encoder_hidden_states", "attention_mask", "prompt_length")
    )
    assert whole[[4, 0]].prompt_length.tolist() == [4, 0] and whole.to("meta").encoder_hidden_states.is_meta
