"""The few functions of torchvision that SAM2's image predictor needs, for where no torchvision fits the CPU torch.

Written from torchvision's documentation: `Resize` of a tensor is an antialiased bilinear interpolation, `batched_nms`
a greedy suppression within each category.
"""

import importlib.machinery
import sys
import types

import numpy as np
import torch
from torch import Tensor, nn


class Resize(nn.Module):
    def __init__(self, size: tuple[int, int]):
        super().__init__()
        self.height, self.width = int(size[0]), int(size[1])

    def forward(self, x: Tensor) -> Tensor:
        size = [self.height, self.width]
        return nn.functional.interpolate(x[None], size, mode="bilinear", align_corners=False, antialias=True)[0]


class Normalize(nn.Module):
    def __init__(self, mean: list[float], std: list[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class ToTensor:
    def __call__(self, image) -> Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def box_area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def batched_nms(boxes: Tensor, scores: Tensor, categories: Tensor, iou_threshold: float) -> Tensor:
    kept = []
    for i in torch.argsort(scores, descending=True, stable=True).tolist():
        a = boxes[i].tolist()
        for j in kept:
            b = boxes[j].tolist()
            width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            shared = max(width, 0) * max(height, 0)
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
            if categories[i] == categories[j] and union > 0 and shared / union > iou_threshold:
                break
        else:
            kept.append(i)
    return torch.tensor(kept, dtype=torch.long)


def install() -> None:
    """Puts the stub where SAM2 looks for torchvision, unless a working one is there."""
    try:
        import torchvision.ops  # noqa: F401
    except (ImportError, RuntimeError):
        for name, content in {
            "torchvision": {},
            "torchvision.transforms": {"Resize": Resize, "Normalize": Normalize, "ToTensor": ToTensor},
            "torchvision.ops": {},
            "torchvision.ops.boxes": {"batched_nms": batched_nms, "box_area": box_area},
        }.items():
            module = types.ModuleType(name)
            module.__spec__ = importlib.machinery.ModuleSpec(name, None)
            vars(module).update(content)
            sys.modules[name] = module
