"""PyTorch's side of the train-step benchmark: SAM2's click loop and losses on sam2's modules, float32, eager.

The same work as ours: frozen encoder once per image; then, for every object, a first prompt and correction clicks drawn
from the errors, losses on the full image after each, gradients through all of them, one AdamW step.
"""

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_utils import sample_box_points, sample_random_points_from_errors

from ruac_jax.benchmarks.encoder_torch import build
from ruac_jax.benchmarks.inputs import squares
from ruac_jax.benchmarks.timing import report, settings_from_command_line
from ruac_jax.model import IMAGE_MEAN, IMAGE_STD


def losses(logits: torch.Tensor, truth: torch.Tensor, iou: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
    """SAM2's weighted loss, summed over objects: logits [n, t, h, w], truth [n, 1, h, w]."""
    target = truth.float().expand_as(logits)
    p = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    right = p * target + (1 - p) * (1 - target)
    focal = ((0.25 * target + 0.75 * (1 - target)) * (1 - right) ** 2 * entropy).flatten(2).mean(-1)
    dice = 1 - (2 * (p * target).flatten(2).sum(-1) + 1) / ((p + target).flatten(2).sum(-1) + 1)
    both = ((logits > 0) & (target > 0)).flatten(2).sum(-1)
    either = ((logits > 0) | (target > 0)).flatten(2).sum(-1)
    iou_error = (iou - both / either.clamp(min=1)).abs().mean(-1)
    mask_loss = (20 * focal + dice).min(dim=-1).values
    return (mask_loss + iou_error + F.binary_cross_entropy_with_logits(score, torch.ones_like(score))[None]).sum()


def main() -> None:
    """Times the eager step."""
    settings = settings_from_command_line()
    model = build(settings["variant"], settings["size"])
    for part in (model.image_encoder, model.memory_encoder, model.memory_attention):
        part.requires_grad_(False)
    trained = [*model.sam_mask_decoder.parameters(), *model.sam_prompt_encoder.parameters(), model.no_mem_embed]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, weight_decay=0.1)
    pixels, masks = squares(settings["batch"], settings["objects"], settings["size"])
    image = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.from_numpy(x)[None, :, None, None] for x in (IMAGE_MEAN, IMAGE_STD))
    image = (image - mean) / std
    truth = torch.from_numpy(masks).flatten(0, 1)[:, None]
    objects = settings["objects"]

    def step() -> None:
        with torch.no_grad():
            levels = model.image_encoder(image)["backbone_fpn"]
        decoder = model.sam_mask_decoder
        embedding = levels[2] + model.no_mem_embed.permute(0, 2, 1)[..., None]
        features, s0, s1 = (
            x.repeat_interleave(objects, dim=0)
            for x in (embedding, decoder.conv_s0(levels[0]), decoder.conv_s1(levels[1]))
        )
        use_box = bool(torch.rand(()) < 0.5)
        points, labels = sample_box_points(truth) if use_box else sample_random_points_from_errors(truth, None)
        feedback, prediction, total = None, torch.zeros_like(truth), torch.zeros(())
        for click in range(settings["corrections"] + 1):
            if click:
                new = sample_random_points_from_errors(truth, prediction)
                points, labels = torch.cat([points, new[0]], 1), torch.cat([labels, new[1]], 1)
            out = model._forward_sam_heads(
                features,
                {"point_coords": points, "point_labels": labels},
                feedback,
                [s0, s1],
                multimask_output=not click and not use_box,
            )
            _, fine, iou, feedback, best, _, score = out
            prediction = best.detach() > 0
            total = total + losses(fine, truth, iou, score)
        optimizer.zero_grad()
        (total / truth.shape[0]).backward()
        torch.nn.utils.clip_grad_norm_(trained, 0.1)
        optimizer.step()

    report(step, settings["repeats"])


if __name__ == "__main__":
    main()
