from collections.abc import Callable
from functools import partial

import pytest
import torch

from afterglow.errors import AfterglowError
from afterglow.mitigations.training.sample_dropping import SampleDropping
from afterglow.models.conditioning import TextConditioning
from afterglow.models.denoiser import TrainingMitigation, TrainStepOutput
from afterglow.models.lightning_module import DenoiserModule, OptimizerConfig, masked_mean
from afterglow.models.text_ddpm import TextConditionalDDPM
from afterglow.planting.dataset import Batch
from afterglow.sampling.loop import Sampler, generate
from afterglow.sampling.recorder import CaptureConfig

Make = Callable[..., TextConditionalDDPM]


def module_of(model: TextConditionalDDPM, *mitigations: TrainingMitigation) -> DenoiserModule:
    module = DenoiserModule(model, mitigations=mitigations)
    module.all_gather = lambda tensor: tensor  # type: ignore[method-assign,assignment]
    return module


def gradients(module: DenoiserModule, batch: Batch) -> list[torch.Tensor]:
    module.zero_grad()
    module.training_step(batch, 0).backward()
    return [p.grad.clone() for p in module.model.unet.parameters()]


class Dropping(TrainingMitigation):
    def __init__(self, kept: list[bool]) -> None:
        self.answer = torch.tensor(kept)

    def loss_mask(self, model: object, step: TrainStepOutput) -> torch.Tensor:
        return self.answer


def test_lr_factor_warms_up_stays_and_decays_linearly() -> None:
    options = OptimizerConfig(warmup_steps=10, lr_decay_fraction=0.25)
    factors = [options.lr_factor(step, 200) for step in range(201)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10:151] == [1.0] * 141
    assert factors[150:] == pytest.approx([(200 - step) / 50 for step in range(150, 201)]) and factors[200] == 0 < factors[199]
    assert [OptimizerConfig(warmup_steps=0).lr_factor(step, 50) for step in (0, 25, 49)] == [1, 1, 1]


def test_training_step_inert_mitigation_changes_no_bit(caption: Make, batch: Callable[..., Batch]) -> None:
    plain, model = caption(cond_drop_prob=0.3), caption(cond_drop_prob=0.3)
    expected, losses = gradients(module_of(plain), batch(6)), plain.losses(batch(6))
    assert module_of(plain).training_step(batch(6), 0) == losses.mean()
    for mitigations in ((TrainingMitigation(),), (TrainingMitigation(), Dropping([True] * 6))):
        module = module_of(model, *mitigations)
        assert torch.equal(model.forward_batch(batch(6), mitigations).losses, losses)
        assert all(torch.equal(one, other) for one, other in zip(gradients(module, batch(6)), expected, strict=True))
    assert module.training_step(batch(6), 0) == losses.mean()


def test_training_step_dropped_samples_are_in_neither_loss_nor_gradient(caption: Make, batch: Callable[..., Batch]) -> None:
    model, whole = caption(), batch(4)
    part = Batch(*(getattr(whole, name)[:2] for name in ("image", "caption", "kind", "index")))
    expected = gradients(module_of(model), part)
    both = module_of(model, Dropping([True, True, True, False]), Dropping([True, True, False, True]))  # all must keep a sample
    for one, other in zip(gradients(both, whole), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
    none = module_of(model, Dropping([False] * 4))
    assert all((one == 0).all() for one in gradients(none, whole)) and none.training_step(whole, 0) == 0


def test_masked_mean_over_processes_is_mean_over_all_kept_samples() -> None:
    losses, kept = torch.tensor([[1.0, 2, 4], [8, 16, 32]]), torch.tensor([[True, False, False], [True, True, True]])
    counts = kept.sum(1)
    means = [masked_mean(one, keep, lambda _: counts) for one, keep in zip(losses, kept, strict=True)]
    assert sum(means) / 2 == pytest.approx((1 + 8 + 16 + 32) / 4)
    assert masked_mean(torch.tensor([torch.inf, 3.0]), torch.tensor([False, True])) == 3


def test_forward_batch_applies_mitigations_in_order(caption: Make, batch: Callable[..., Batch]) -> None:
    class Louder(TrainingMitigation):
        def perturb_captions(self, model: object, captions: object, index: object) -> list[str]:
            return [f"{text} {number}" for text, number in zip(captions, index, strict=True)]  # type: ignore[call-overload]

        def perturb_embeddings(self, model: object, condition: TextConditioning, captions: object, index: object) -> TextConditioning:
            return TextConditioning(2 * condition.encoder_hidden_states, condition.attention_mask, condition.prompt_length)

    model, some = caption(cond_drop_prob=0.5), batch(8)
    step, dropped = model.forward_batch(some, (Louder(), Louder())), model.sample_noise_and_timesteps(some.index, some.image)[2].tolist()
    expected = ["" if drop else f"an image of {row} {row} {row}" for row, drop in enumerate(dropped)]
    assert step.captions == expected and 0 < sum(dropped) < 8
    plain = model.condition(expected).encoder_hidden_states
    assert step.condition is not None and torch.equal(step.condition.encoder_hidden_states, 4 * plain)


def test_channels_last_changes_the_memory_of_the_weights_and_not_the_loss(small_captioned: Make) -> None:
    batch = Batch(torch.rand(4, 3, 8, 8) * 2 - 1, ("a", "b", "", "c"), ("control",) * 4, torch.arange(4))
    plain, other = module_of(small_captioned()), module_of(small_captioned(channels_last=True))
    assert other.model.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    for expected, found in zip(gradients(plain, batch), gradients(other, batch), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_a_compiled_network_trains_alike_keeps_its_names_and_can_be_read_without_the_compiler(small_captioned: Make, monkeypatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    batch = Batch(torch.rand(4, 3, 8, 8) * 2 - 1, ("a", "b", "", "c"), ("control",) * 4, torch.arange(4))
    plain, other = module_of(small_captioned()), module_of(small_captioned(compile=True))
    other.model.compile_network()
    assert other.state_dict().keys() == plain.state_dict().keys() and other.model.unet._compiled_call_impl is not None
    for expected, found in zip(gradients(plain, batch), gradients(other, batch), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    with torch.compiler.set_stance("force_eager"):  # as an evaluation does
        found = generate(other.model, ["a"], [0], Sampler(steps=2), CaptureConfig(end_steps=(-1,)))
    expected = generate(plain.model, ["a"], [0], Sampler(steps=2), CaptureConfig(end_steps=(-1,)))
    assert torch.equal(found.images, expected.images) and found.layers == expected.layers


def test_compile_is_refused_where_it_does_not_work(small_captioned: Make, monkeypatch) -> None:
    with pytest.raises(AfterglowError, match=r"model\.compile cannot be used with SampleDropping, which reads the network"):
        DenoiserModule(small_captioned(compile=True), mitigations=[SampleDropping("entropy")])

    def compiler(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", compiler)
    small_captioned().compile_network()  # was not asked for
    with pytest.raises(AfterglowError, match=r"torch\.compile does not work here \(RuntimeError no C\+\+ compiler\); leave it out"):
        small_captioned(compile=True).compile_network()
