import math

import pytest
import torch

from afterglow.measures.token_entropy import attention_entropy, memattn_d, memattn_e


@pytest.mark.parametrize("last", [False, True])
def test_uniform_attention_has_entropy_ln_l_and_one_hot_none(make_generations, last):
    uniform = torch.full((10, 2, 3, 16), 1 / 16).half()
    one_hot = torch.nn.functional.one_hot(torch.full((10, 2, 3), 5), 16).half()
    assert attention_entropy(make_generations(2, token_attention=uniform), last=last).tolist() == pytest.approx([math.log(16)] * 2)
    assert attention_entropy(make_generations(2, token_attention=one_hot), last=last).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("steps", "tail"), [(50, range(40, 50)), (10, range(8, 10)), (4, range(3, 4))])
def test_entropy_is_that_of_the_average_over_layers_at_the_first_step_or_the_last_fifth(make_generations, steps, tail):
    generations = make_generations(2, steps=steps)
    attention = generations.token_attention.double().numpy()

    def plain(step, row):
        average = attention[step, row].mean(0)
        return -sum(share * math.log(share) for share in average if share > 0)

    first = [plain(0, row) for row in range(2)]
    last = [sum(plain(step, row) for step in tail) / len(tail) for row in range(2)]
    assert attention_entropy(generations, last=False).tolist() == pytest.approx(first, rel=1e-4)
    assert attention_entropy(generations, last=True).tolist() == pytest.approx(last, rel=1e-4)


def h(shares):
    return -sum(share * math.log(share) for share in shares if share > 0)


@pytest.mark.parametrize("absolute", [False, True])
def test_d_is_the_entropy_at_the_end_and_the_change_of_its_summary_part(make_generations, absolute):
    generations = make_generations(3, steps=50, prompt_length=torch.tensor([2, 4, 6]))
    average = generations.token_attention.double().mean(2).numpy()  # [T, B, L]
    found = memattn_d(generations, absolute=absolute)
    signs = []
    for row, first_end in enumerate((1, 3, 5)):
        ends = [h(average[t, row]) for t in range(40, 50)]
        summary = [h(average[t, row][first_end:]) for t in range(50)]
        change = sum(summary[40:]) / 10 - summary[0]
        signs.append(change < 0)
        assert found[row].item() == pytest.approx(sum(ends) / 10 + (abs(change) if absolute else change), rel=1e-4)
    assert any(signs)


def test_e_is_the_entropy_of_one_layer_at_the_first_step(make_generations):
    generations = make_generations(2)
    for layer in range(4):
        expected = [h(generations.token_attention[0, row, layer].double().tolist()) for row in range(2)]
        assert memattn_e(generations, [layer]).tolist() == pytest.approx(expected, rel=1e-5)
