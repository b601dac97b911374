from types import SimpleNamespace

import pytest
import torch

from afterglow.errors import AfterglowError
from afterglow.mitigations.inference.pad_replacement import PadReplacement
from afterglow.models.stable_diffusion import StableDiffusion
from afterglow.sampling.attention import record_attention
from afterglow.sampling.guidance import predict_both
from afterglow.sampling.loop import Sampler, initial_input


@torch.no_grad()
def test_pads_are_encoded_as_exclamation_marks_and_the_first_end_token_gets_no_attention(heard, setup):
    changed = PadReplacement()(heard, setup)
    lengths = setup.condition.prompt_length.tolist()
    tokens = heard.text.tokenize(["", *setup.captions])["input_ids"]
    mark = heard.tokenizer.convert_tokens_to_ids("!")
    assert mark != heard.tokenizer.unk_token_id
    for row, (ids, length) in enumerate(zip(tokens[[0, 0, 0, 1, 2, 3]], lengths, strict=True)):
        ids = torch.tensor([*ids[:length].tolist(), *[mark] * (len(ids) - length)])
        states = heard.text.model(input_ids=ids[None]).last_hidden_state[0]
        torch.testing.assert_close(changed.condition.encoder_hidden_states[row], states)
        torch.testing.assert_close(states[:length], setup.condition.encoder_hidden_states[row, :length])  # a causal encoder looks back only
    noisy, timestep = initial_input(heard, setup)
    with changed.attention_context(), record_attention(heard.unet) as maps:
        predict_both(heard, changed.condition, noisy, timestep)
    for attention in maps.values():
        for row, length in enumerate(lengths):
            assert (attention[row, :, length - 1] == 0).all() and (attention[row, :, length:] > 0).all()


def test_stable_diffusion_is_encoded_again_as_its_pipeline_does(sd_folder):
    model = StableDiffusion(str(sd_folder), resolution=64).eval()
    setup = Sampler(steps=2).setup(model, ["a dog", "two words here"], [0, 1])
    own, changed = (PadReplacement(active)(model, setup).condition.encoder_hidden_states for active in (False, True))
    torch.testing.assert_close(own, setup.condition.encoder_hidden_states)
    length = int(setup.condition.prompt_length[2])
    torch.testing.assert_close(changed[2, :length], own[2, :length])
    assert not torch.allclose(changed[2, length:], own[2, length:])


def test_a_model_without_one_text_encoder_is_refused(setup):
    with pytest.raises(AfterglowError, match="SimpleNamespace does not have"):
        PadReplacement()(SimpleNamespace(text=None, device=torch.device("cpu")), setup)
