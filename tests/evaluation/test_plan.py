import pytest

from afterglow.evaluation.plan import SEED_RULES, GenerationPlan


def test_seed_rules_of_the_first_image():
    assert [SEED_RULES["image"](5, prompt, 1) for prompt in range(3)] == [6, 6, 6]
    assert [SEED_RULES["prompt"](5, prompt, 0) for prompt in range(3)] == [5, 6, 7]
    assert [SEED_RULES["constant"](42, prompt, 0) for prompt in range(3)] == [42, 42, 42]


@pytest.mark.parametrize("rule", SEED_RULES)
def test_samples_have_distinct_seeds_per_prompt(rule):
    samples = GenerationPlan(num_images=3, seed_rule=rule).samples([1, 4])
    assert [prompt for prompt, _ in samples] == [1, 1, 1, 4, 4, 4]
    assert all(len({seed for prompt, seed in samples if prompt == number}) == 3 for number in (1, 4))


def test_parts_cover_all_prompts_in_order():
    parts = GenerationPlan(prompts_per_part=2).parts(5)
    assert [list(part) for part in parts] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("options", [{"seed_rule": "line"}, {"num_images": 0}, {"prompts_per_part": 0}])
def test_plan_with_invalid_options_is_refused(options):
    with pytest.raises(ValueError, match="must be"):
        GenerationPlan(**options)
