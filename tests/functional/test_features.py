import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from afterglow.functional.features import frechet_distance, pixel_features


class Features(torch.nn.Module):
    num_features = 3

    def forward(self, images):
        return images.flatten(2).float().mean(2)


def test_frechet_distance_agrees_with_torchmetrics():
    first, second = (
        torch.randint(256, (20, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(s)) // (1 + s) for s in (0, 1)
    )
    metric = FrechetInceptionDistance(feature=Features(), input_img_size=(3, 8, 8))
    metric.update(first, real=True)
    metric.update(second, real=False)
    ours = frechet_distance(Features()(first), Features()(second))
    assert ours == pytest.approx(float(metric.compute()), rel=1e-3) and frechet_distance(Features()(first), Features()(first)) < 1e-6


def test_pixel_features_are_the_means_of_cells():
    image = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    image[..., :2, :2] = 255
    assert pixel_features(image).tolist() == [[1.0] + [0.0] * 15]
