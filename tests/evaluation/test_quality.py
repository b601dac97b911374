import pytest
import torch
from torch.nn.functional import normalize
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from afterglow.evaluation.embeddings import PatchTokens
from afterglow.evaluation.quality import clip_agreement, with_agreement, with_features
from afterglow.generations import Generations
from afterglow.testing.tiny_sd import clip_tokenizer


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
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


def generations(channels=3):
    images = torch.randint(256, (2, channels, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Generations(images, ("a red house", "a dog"), torch.zeros(2), torch.tensor([1]))


def test_agreement_is_the_models_own_cosine(clip):
    found = with_agreement(generations(), clip_agreement(clip))
    model = CLIPModel.from_pretrained(clip).eval()
    processor, tokenizer = CLIPImageProcessor.from_pretrained(clip), clip_tokenizer()
    for row in range(2):
        with torch.no_grad():
            shown = processor([found.images[row]], return_tensors="pt")["pixel_values"]
            seen = model(pixel_values=shown, **tokenizer([found.caption[row]], return_tensors="pt"))
        cosine = (normalize(seen.image_embeds, dim=1) @ normalize(seen.text_embeds, dim=1).T).item()
        assert found.extras["caption_agreement"][row].item() == pytest.approx(cosine, abs=1e-4)
    assert found.provenance["caption_agreement"] == "tiny"
    assert with_agreement(generations(1), clip_agreement(clip)).extras["caption_agreement"].isfinite().all()


def test_features_are_mean_tokens(clip):
    tokens = torch.randn(2, 3, 3, 5)
    found = with_features(generations(), PatchTokens("dino", lambda images: tokens))
    torch.testing.assert_close(found.extras["features"], tokens.mean((1, 2)))
    assert found.provenance["features"] == "dino"


def test_a_folder_without_clip_is_refused(tmp_path):
    with pytest.raises(ValueError, match="There is no CLIP model in"):
        clip_agreement(tmp_path)
