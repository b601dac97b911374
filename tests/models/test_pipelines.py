"""Stable Diffusion XL's structure, read against diffusers' own pipeline and against attention written out from the layers' inputs."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from attention_reference import written_out
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from diffusers.models.attention_processor import Attention
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5Tokenizer

from afterglow.attention_names import ATTENTION_COLUMNS, layer_sets
from afterglow.datasets.images import CaptionedImages
from afterglow.errors import AfterglowError
from afterglow.measures.registry import available_maps, available_scores
from afterglow.mitigations.pipeline import PipelineModel
from afterglow.models.io import open_model
from afterglow.models.pipelines import encode_prompts
from afterglow.models.stable_diffusion import StableDiffusion
from afterglow.planting.dataset import PlantedDataset
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantingConfig
from afterglow.sampling.attention import record_attention
from afterglow.sampling.loop import Sampler, generate
from afterglow.sampling.recorder import CaptureConfig
from afterglow.testing.tiny_sd import clip_tokenizer

CAPTIONS, SEEDS = ["a red house by the sea", " ".join(["word"] * 100)], [3, 8]


@pytest.fixture(scope="module")
def model(xl_folder: Path) -> StableDiffusion:
    return open_model(xl_folder)


def test_images_and_attention_of_xl_are_those_of_its_pipeline(model):
    sampler = Sampler("EulerDiscreteScheduler", 2, 5.0, {})
    ours = generate(model, CAPTIONS, SEEDS, sampler, CaptureConfig(end_steps=(-1,)))
    assert ours.provenance["sink"] == "bos" and ours.prompt_length.tolist() == [8, 77]
    pipeline = model.pipeline()
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    call = lambda: pipeline(CAPTIONS, num_inference_steps=2, guidance_scale=5.0, generator=generators, output_type="np")  # noqa: E731
    theirs, expected = written_out(pipeline.unet, call, slice(2, None))
    assert (np.abs((theirs.images * 255).round().transpose(0, 3, 1, 2) - ours.images.numpy()) <= 1).all()
    assert ours.layers == list(expected) and ours.layers[0].startswith("down_blocks.1.attentions.0") and len(ours.layers) == 17
    for number, (layer, attention) in enumerate(expected.items()):
        assert attention.shape[-1] == 77
        torch.testing.assert_close(ours.token_attention[-1][:, number].float(), attention.mean(1), rtol=2e-3, atol=1e-5)
        ends = ours.end_attention[1, layer].float()
        for row, end in enumerate((7, 76)):
            torch.testing.assert_close(ends[row, :, ATTENTION_COLUMNS.index("first_eos")], attention[row, :, end], rtol=2e-3, atol=1e-5)


def test_every_measure_of_xl_can_be_computed(model):
    generations = generate(model, CAPTIONS[:1], [0], Sampler("EulerDiscreteScheduler", 2, 5.0, {}))
    sets = layer_sets(generations.layers)
    assert len(sets["be"]) == 2 and len(sets["mid_block.attentions.0"]) == 2 and len(sets) == 13
    named = {m.name: m for m in [*available_scores(generations), *available_maps(generations)]}
    for name in ("ld.be.all", "memattn_e", "memattn_e.mid_block.attentions.0", "end_token.last.first_eos.be", "sink_darkness.last.all"):
        assert named[name].compute(generations).isfinite().all()


def test_a_pipeline_encodes_as_the_model_and_the_empty_caption_is_zero(model):
    ours = model.condition([*CAPTIONS, ""])
    states, pooled = encode_prompts(model.pipeline(), CAPTIONS, torch.device("cpu"))
    torch.testing.assert_close(ours.encoder_hidden_states[:2], states)
    torch.testing.assert_close(ours.pooled[:2, : pooled.shape[1]], pooled)
    assert not ours.encoder_hidden_states[2].any() and not ours.pooled[2].any() and ours.attention_mask.all()
    around = PipelineModel(model.pipeline())
    noisy, times = torch.randn(3, 4, 8, 8), torch.tensor([500] * 3)
    with torch.no_grad():
        torch.testing.assert_close(around(noisy, times, around.condition([*CAPTIONS, ""])), model(noisy, times, ours))


def test_xl_trains_from_the_cache(model, tmp_path, monkeypatch):
    monkeypatch.setenv("AFTERGLOW_CACHE", str(tmp_path / "cache"))
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3, 64, 64), dtype=np.uint8)
    names = tuple(f"image {row}" for row in range(20))
    kinds = {"num_decoys": 0, "num_tints": 0, "num_backgrounds": 2, "num_decoy_images": 0, "num_heldout": 1}
    planted = plant_images(
        CaptionedImages(pixels, names, names, np.full(20, -1), True), PlantingConfig(1, 1, copies=(2,), **kinds), set_size=4, seed=0
    )
    trained, samples = copy.deepcopy(model).train(), PlantedDataset(planted, 0)
    direct = trained.losses(samples.batch(range(2)))
    trained.prepare_training(samples, 2, 0, 1, lambda: None)
    torch.testing.assert_close(trained.losses(samples.batch(range(2))), direct, rtol=1e-3, atol=1e-3)
    optimizer = torch.optim.AdamW(trained.unet.parameters(), 1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        (loss := trained.losses(samples.batch(range(2))).mean()).backward()
        optimizer.step()
    assert loss < direct.mean()


def test_the_autoencoder_of_xl_leaves_half_precision(model):
    half = copy.deepcopy(model).half()
    assert half.vae.dtype == torch.float32 and copy.deepcopy(model).bfloat16().vae.dtype == torch.bfloat16
    assert model.vae.dtype == torch.float32


@pytest.mark.parametrize("name", ["FluxPipeline", "StableDiffusion3Pipeline"])
def test_joint_attention_is_refused(name, tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))  # such a folder has no part called unet
    for open_folder in (open_model, StableDiffusion):
        with pytest.raises(AfterglowError, match=f"is a {name}, which is not supported: text and pixels are one sequence"):
            open_folder(str(tmp_path))


@pytest.fixture(scope="module")
def joint_pipeline() -> StableDiffusion3Pipeline:
    """Stable Diffusion 3.5's structure with random weights: three encoders, joint blocks, the first also with attention of pixels alone."""
    torch.manual_seed(0)
    clip = clip_tokenizer()
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "projection_dim": 16}
    config = CLIPTextConfig(vocab_size=len(clip), bos_token_id=clip.bos_token_id, eos_token_id=clip.eos_token_id, **small)
    words = T5Tokenizer(vocab=[(word, 0.0) for word in ("<pad>", "</s>", "<unk>", "▁", "▁a", "▁red", "▁house")], extra_ids=0)
    t5 = T5Config(vocab_size=len(words), d_model=40, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    network = SD3Transformer2DModel(
        sample_size=8, num_layers=3, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=40, caption_projection_dim=16,
        pooled_projection_dim=32, pos_embed_max_size=8, dual_attention_layers=(0,), qk_norm="rms_norm",
    )  # fmt: skip
    for parameter in network.parameters():  # sharper attention than at the start of a training
        parameter.data *= 3
    return StableDiffusion3Pipeline(
        transformer=network.eval(), scheduler=FlowMatchEulerDiscreteScheduler(), vae=None,
        text_encoder=CLIPTextModelWithProjection(config).eval(), tokenizer=clip,
        text_encoder_2=CLIPTextModelWithProjection(config).eval(), tokenizer_2=clip,
        text_encoder_3=T5EncoderModel(t5).eval(), tokenizer_3=words,
    )  # fmt: skip


def joint_softmax(attn: Attention, pixels: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Attention [B, P, P + L] of the pixels to pixels and text in a joint layer, head by head, from what goes into the layer."""
    width, maps = attn.to_q.out_features // attn.heads, []
    for head in range(attn.heads):
        part = slice(head * width, (head + 1) * width)
        query, near, far = (
            norm(projection(states)[..., part])
            for norm, projection, states in (
                (attn.norm_q, attn.to_q, pixels),
                (attn.norm_k, attn.to_k, pixels),
                (attn.norm_added_k, attn.add_k_proj, text),
            )
        )
        logits = torch.einsum("bpd,bkd->bpk", query, torch.cat([near, far], dim=1)) / width**0.5
        maps.append(logits.exp() / logits.exp().sum(-1, keepdim=True))
    return torch.stack(maps).mean(0)


def test_joint_attention_at_the_end_token_of_each_encoder_is_written_out(joint_pipeline):
    caption, seen = "a red house", {}
    ends = [len(joint_pipeline.tokenizer(caption).input_ids) - 1, 77 + len(joint_pipeline.tokenizer_3(caption).input_ids) - 1]
    call = lambda: joint_pipeline(  # noqa: E731
        caption, height=64, width=64, num_inference_steps=2, guidance_scale=3.0, output_type="latent", max_sequence_length=9,
        generator=torch.Generator().manual_seed(0),
    ).images  # fmt: skip
    joint_pipeline.set_progress_bar_config(disable=True)
    plain = call()
    layers = {f"transformer_blocks.{number}.attn": block.attn for number, block in enumerate(joint_pipeline.transformer.transformer_blocks)}
    handles = [
        attn.register_forward_pre_hook(lambda _, __, inputs, name=name: seen.update({name: inputs}), with_kwargs=True)
        for name, attn in layers.items()
    ]
    with record_attention(joint_pipeline.transformer, lambda attention: attention, rows=slice(1, None)) as maps:
        assert torch.equal(call(), plain)
    for handle in handles:
        handle.remove()
    assert list(maps) == list(layers)
    for name, attn in layers.items():
        with torch.no_grad():
            full = joint_softmax(attn, seen[name]["hidden_states"][1:], seen[name]["encoder_hidden_states"][1:])
        assert maps[name].shape == (1, 16, 77 + 9) and full.shape[-1] == 16 + 77 + 9 and maps[name].sum(-1).min() < 0.99
        torch.testing.assert_close(maps[name], full[..., 16:], rtol=1e-4, atol=1e-7)
        assert maps[name][..., ends].std() > 0
