import pytest
import torch

from afterglow.sampling import batches
from afterglow.sampling.batches import activation_bytes, fitting_batch


def test_activations_of_both_halves_are_counted_while_they_exist(small_captioned, small_plain):
    model, plain = small_captioned(), small_plain()
    sizes = []
    for module in model.unet.modules():
        module.register_forward_hook(lambda _, __, output: sizes.append(output.nbytes) if isinstance(output, torch.Tensor) else None)
    found = activation_bytes(model)
    assert max(sizes) < found < sum(sizes) / 2
    assert activation_bytes(model.to(torch.bfloat16)) == pytest.approx(found / 2, rel=0.1)
    assert activation_bytes(plain) > 0 and not any(module._forward_hooks for module in plain.unet.modules())


@pytest.mark.parametrize(("rows", "expected"), [(0.1, 1), (2.5, 2), (4, 4), (7.9, 4), (1000, 32)])
def test_a_power_of_two_fits_on_a_cpu(rows, expected, small_plain, monkeypatch):
    model = small_plain()
    monkeypatch.setattr(batches, "CPU_BYTES", int(rows * activation_bytes(model)) + 1)
    assert fitting_batch(model) == expected
