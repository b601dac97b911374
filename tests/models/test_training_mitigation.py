from collections.abc import Callable

import pytest
import torch

from afterglow.models.denoiser import TextConditioning
from afterglow.models.text_ddpm import TextConditionalDDPM
from afterglow.models.training_mitigation import TrainingMitigation, TrainStepOutput, masked_mean
from afterglow.planting.dataset import Batch

Make = Callable[..., TextConditionalDDPM]


def gradients(model: TextConditionalDDPM, batch: Batch) -> list[torch.Tensor]:
    model.zero_grad()
    model.all_gather = lambda tensor: tensor  # type: ignore[method-assign,assignment]
    model.training_step(batch, 0).backward()
    return [p.grad.clone() for p in model.unet.parameters()]


class Dropping(TrainingMitigation):
    def __init__(self, kept: list[bool]) -> None:
        self.answer = torch.tensor(kept)

    def kept(self, model: object, lesson: TrainStepOutput) -> torch.Tensor:
        return self.answer


def test_a_remedy_that_does_nothing_changes_no_bit(caption: Make, batch: Callable[..., Batch]) -> None:
    plain, model = caption(cond_drop_prob=0.3), caption(cond_drop_prob=0.3)
    expected, losses = gradients(plain, batch(6)), plain.losses(batch(6))
    assert plain.mitigations == () and plain.training_step(batch(6), 0) == losses.mean()
    for mitigations in ((TrainingMitigation(),), (TrainingMitigation(), Dropping([True] * 6))):
        model.mitigations = mitigations
        assert torch.equal(model.losses(batch(6)), losses)
        assert all(torch.equal(one, other) for one, other in zip(gradients(model, batch(6)), expected, strict=True))
    assert model.training_step(batch(6), 0) == losses.mean()


def test_what_is_dropped_is_neither_in_the_loss_nor_in_the_gradient(caption: Make, batch: Callable[..., Batch]) -> None:
    model, whole = caption(), batch(4)
    part = Batch(*(getattr(whole, name)[:2] for name in ("image", "caption", "kind", "index")))
    expected = gradients(model, part)
    model.mitigations = (Dropping([True, True, True, False]), Dropping([True, True, False, True]))  # kept is what all of them keep
    for one, other in zip(gradients(model, whole), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
    model.mitigations = (Dropping([False] * 4),)
    assert all((one == 0).all() for one in gradients(model, whole)) and model.training_step(whole, 0) == 0


def test_the_mean_over_processes_is_the_mean_over_all_that_they_keep() -> None:
    losses, kept = torch.tensor([[1.0, 2, 4], [8, 16, 32]]), torch.tensor([[True, False, False], [True, True, True]])
    counts = kept.sum(1)
    found = [masked_mean(one, keep, lambda _: counts) for one, keep in zip(losses, kept, strict=True)]
    assert sum(found) / 2 == pytest.approx((1 + 8 + 16 + 32) / 4)
    assert masked_mean(torch.tensor([torch.inf, 3.0]), torch.tensor([False, True])) == 3


def test_remedies_say_other_captions_and_states_one_after_the_other(caption: Make, batch: Callable[..., Batch]) -> None:
    class Louder(TrainingMitigation):
        def told(self, model: object, captions: object, index: object) -> list[str]:
            return [f"{text} {number}" for text, number in zip(captions, index, strict=True)]  # type: ignore[call-overload]

        def heard(self, model: object, condition: TextConditioning, captions: object, index: object) -> TextConditioning:
            return TextConditioning(2 * condition.states, condition.mask, condition.prompt_length)

    model, some = caption(cond_drop_prob=0.5), batch(8)
    model.mitigations = (Louder(), Louder())
    lesson, dropped = model.lesson(some), model.draw(some, some.image.shape)[2].tolist()
    expected = ["" if drop else f"an image of {row} {row} {row}" for row, drop in enumerate(dropped)]
    assert lesson.captions == expected and 0 < sum(dropped) < 8
    assert lesson.condition is not None and torch.equal(lesson.condition.states, 4 * model.condition(expected).states)
