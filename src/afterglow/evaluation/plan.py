"""Which seeds the generations of each caption use, and how a long collection is divided into parts."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from afterglow.errors import AfterglowError

SEED_RULES: Mapping[str, Callable[[int, int, int], int]] = {  # (first seed, prompt, image of the prompt) => seed
    "image": lambda first, prompt, image: first + image,  # every prompt starts from the same initial noises
    "prompt": lambda first, prompt, image: first + prompt + 1_000_003 * image,  # Wen, Chen, Ren for the first image of a prompt
    "constant": lambda first, prompt, image: first if image == 0 else first + 1_000_003 * image,  # Jeon: one seed for all prompts
}


@dataclass(frozen=True)
class GenerationPlan:
    """How many images each prompt gets, and their seeds.

    Args:
        num_images: images per prompt.
        seed: first seed.
        seed_rule: "image" (all prompts share their seeds), "prompt" (seed + number of the prompt) or "constant".
        prompts_per_part: prompts in one part of a collection; an interruption loses at most one part.

    Raises:
        AfterglowError: if a number is below 1 or the rule is unknown.
    """

    num_images: int = 4
    seed: int = 0
    seed_rule: str = "image"
    prompts_per_part: int = 8

    def __post_init__(self) -> None:
        if self.num_images < 1 or self.prompts_per_part < 1:
            raise AfterglowError("num_images and prompts_per_part must be at least 1.")
        if self.seed_rule not in SEED_RULES:
            raise AfterglowError(f"The seed rule must be one of {', '.join(SEED_RULES)}, not '{self.seed_rule}'.")

    def samples(self, prompts: Iterable[int]) -> list[tuple[int, int]]:
        """(prompt, seed) of every image of these prompts, all images of a prompt together."""
        rule = SEED_RULES[self.seed_rule]
        return [(prompt, rule(self.seed, prompt, image)) for prompt in prompts for image in range(self.num_images)]

    def parts(self, num_prompts: int) -> list[range]:
        """The prompts of each part of a collection."""
        starts = range(0, num_prompts, self.prompts_per_part)
        return [range(start, min(start + self.prompts_per_part, num_prompts)) for start in starts]
