"""The prompt-free (and, on request, promptable) segmenter over a SAM-family image encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from segment_anything.modeling import PromptEncoder
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from topolora_monai.errors import ConfigError
from topolora_monai.networks.mask_decoder import MaskDecoder
from topolora_monai.networks.shared import checked_image

Fit = Literal["pad", "squash"]

NextPrompts = Callable[[Tensor], Mapping[str, Tensor] | None]
"""From the logits of the latest answer to the prompts of the next, by name; None ends the asking."""

_PIXEL_MEAN = (123.675, 116.28, 103.53)
_PIXEL_STD = (58.395, 57.12, 57.375)


class SamSegmenter(nn.Module):
    """Logits at input size from an image of any size, through SAM's encoder and mask decoder.

    SAM's resizing, padding and normalisation happen inside. Without prompts the decoder gets SAM's empty
    prompt, as in TopoLoRA-SAM (arXiv 2601.02273); with prompts the same weights answer to clicks and boxes.

    Args:
        image_encoder: one of the package's encoders.
        prompt_encoder: SAM's prompt encoder.
        mask_decoder: the package's batched decoder.
        image_size: side in pixels that the longer side of the input is resized to; a multiple of the
            encoder's stride.
        in_channels: 3 for colour; 1 is repeated; any other number is mixed to three by a trainable 1x1
            convolution that starts as an average over interleaved channels.
        fit: ``"pad"`` keeps the aspect ratio and pads with zeros below and to the right (SAM's way),
            ``"squash"`` resizes both sides to ``image_size`` (the published TopoLoRA-SAM protocol).
        base_name: name of the base network, which adapter files are tied to.

    Raises:
        ConfigError: for an ``image_size`` that is not a positive multiple of the stride.

    Example:
        >>> import torch
        >>> from topolora_monai.networks import build_network
        >>> network = build_network("vit_tiny_test", image_size=64)
        >>> network(torch.rand(1, 3, 50, 70)).shape
        torch.Size([1, 1, 50, 70])
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        image_encoder: nn.Module,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
        image_size: int = 1024,
        in_channels: int = 3,
        fit: Fit = "pad",
        base_name: str = "custom",
    ) -> None:
        super().__init__()
        stride: int = image_encoder.stride  # type: ignore[assignment]
        if image_size <= 0 or image_size % stride:
            below = max(stride, image_size // stride * stride)
            raise ConfigError(
                "image_size does not fit the image encoder",
                expected=f"a positive multiple of {stride}",
                found=image_size,
                hint=f"use {below} or {below + stride}",
            )
        if fit not in ("pad", "squash"):
            raise ConfigError("unknown fit", expected='"pad" or "squash"', found=repr(fit))
        self.base_name = base_name
        self.settings: dict[str, Any] = {}  # of build_network, for whoever has to build it again
        self.pretrained = False  # until weights are loaded
        self.image_size = image_size
        self.fit = fit
        self.in_channels = in_channels
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.embedding_adapter: nn.Module = nn.Identity()
        self.detail_branch: nn.Module | None = None  # an injected part, as the embedding's adapter is
        self.channel_mixer: nn.Module = nn.Identity() if in_channels in (1, 3) else _channel_mixer(in_channels)
        self.register_buffer("pixel_mean", torch.tensor(_PIXEL_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(_PIXEL_STD).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> SamSegmenter:
        """Switch mode; frozen BatchNorm layers keep their stored statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm) and not any(p.requires_grad for p in module.parameters()):
                module.eval()
        return self

    def forward(
        self,
        image: Tensor,
        *,
        points: Tensor | None = None,
        point_labels: Tensor | None = None,
        boxes: Tensor | None = None,
        mask_prompt: Tensor | None = None,
        next_prompts: NextPrompts | None = None,
    ) -> Tensor:
        """Segment a batch of images.

        Args:
            image: shape (B, C, H, W), floating point, values in [0, 1].
            points: clicks in pixels of the input, shape (B, P, 2) as (x, y).
            point_labels: 1 foreground, 0 background, -1 ignore, shape (B, P).
            boxes: one box an image in pixels of the input, shape (B, 4) as (x0, y0, x1, y1).
            mask_prompt: logits of an earlier answer at input size, shape (B, 1, H, W).
            next_prompts: asked after each answer, with its logits, for the prompts of one more on the same features.

        Returns:
            Logits of shape (B, K, H, W); of R answers (R * B, K, H, W), one after the other.

        Raises:
            ConfigError: when the number of channels is not the one the network was built for.
        """
        size = (image.shape[-2], image.shape[-1])
        prompts = {"points": points, "point_labels": point_labels, "boxes": boxes, "mask_prompt": mask_prompt}
        features = self.features(image)
        answers = [self.decode(features, size, **prompts)]
        while next_prompts is not None and (more := next_prompts(answers[-1].detach())) is not None:
            answers.append(self.decode(features, size, **more))
        return answers[0] if next_prompts is None else torch.cat(answers)

    def decode(
        self,
        features: tuple[Tensor, ...],
        size: tuple[int, int],
        *,
        points: Tensor | None = None,
        point_labels: Tensor | None = None,
        boxes: Tensor | None = None,
        mask_prompt: Tensor | None = None,
    ) -> Tensor:
        """Answer from what :meth:`features` gave of images of one ``size``, as often as prompts change.

        Prompts are as of :meth:`forward`, and so is the result.
        """
        inner = self._inner_size(size)
        embedding, *finer = features
        image = finer.pop() if self.detail_branch is not None else None
        sparse = self._embed_points(points, point_labels, boxes, size, inner, embedding)
        dense = self._embed_mask(mask_prompt, inner, embedding)
        positions = self.prompt_encoder.pe_layer(embedding.shape[-2:]).unsqueeze(0)
        logits, upscaled = self.mask_decoder(embedding, positions.to(embedding.dtype), sparse, dense, *finer)
        logits = self.restore(logits, size)
        if self.detail_branch is None:
            return logits
        guides: Tensor = self.detail_branch.guide(upscaled)  # type: ignore[operator]
        refined: Tensor = self.detail_branch(image, self.restore(guides, size), logits)
        return refined

    def restore(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Bring a map of the mask decoder (B, K, h, w) to the image's ``size`` in pixels, in float32."""
        inner, logits = self._inner_size(size), logits.float()
        square = (self.image_size, self.image_size)
        if inner != square:
            logits = F.interpolate(logits, size=square, mode="bilinear", align_corners=False)
            logits = logits[..., : inner[0], : inner[1]]
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)

    def encode(self, image: Tensor) -> Tensor:
        """Embed images; (B, C, H, W) in [0, 1] to (B, D, image_size / 16, image_size / 16)."""
        return self.features(image)[0]

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """All that the mask decoder takes of images: the embedding, and finer maps where the encoder has some.

        Images are as of :meth:`forward`; for SAM 2 there are also maps at an eighth and a quarter of ``image_size``,
        and last, for a detail branch, the image itself, normalised, (B, 3, H, W).
        """
        image = checked_image(image, self.in_channels)
        x = self.channel_mixer(image)
        x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
        inner = self._inner_size((image.shape[-2], image.shape[-1]))
        own_size = x = x.float()
        x = F.interpolate(x, size=inner, mode="bilinear", align_corners=False, antialias=True)
        x = (x * 255 - self.pixel_mean) / self.pixel_std
        x = F.pad(x, (0, self.image_size - inner[1], 0, self.image_size - inner[0]))
        encoded = self.image_encoder(x)
        embedding, *finer = encoded if isinstance(encoded, tuple) else (encoded,)
        if self.detail_branch is not None:
            finer = [*finer, (own_size * 255 - self.pixel_mean) / self.pixel_std]
        return (self.embedding_adapter(embedding), *finer)

    def _inner_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Size of the image inside the encoder's square, before padding."""
        if self.fit == "squash":
            return self.image_size, self.image_size
        scale = self.image_size / max(size)
        height, width = (max(1, int(side * scale + 0.5)) for side in size)
        return height, width

    def _embed_points(
        self,
        points: Tensor | None,
        labels: Tensor | None,
        boxes: Tensor | None,
        size: tuple[int, int],
        inner: tuple[int, int],
        embedding: Tensor,
    ) -> Tensor:
        if points is None and boxes is None:
            return embedding.new_zeros(embedding.shape[0], 0, embedding.shape[1])
        if (points is None) != (labels is None):
            raise ConfigError("points and point_labels come together", found="only one of them")
        clicks = None
        if points is not None:
            clicks = (self._to_prompt_frame(points.float(), size, inner), labels)
        corners = None
        if boxes is not None:
            corners = self._to_prompt_frame(boxes.float().reshape(-1, 2, 2), size, inner).reshape(-1, 4)
        sparse, _ = self.prompt_encoder(points=clicks, boxes=corners, masks=None)
        return sparse  # type: ignore[no-any-return]

    def _to_prompt_frame(self, xy: Tensor, size: tuple[int, int], inner: tuple[int, int]) -> Tensor:
        """Map input pixels to the frame SAM's prompt encoder was built for; it adds half a pixel itself."""
        built_h, built_w = self.prompt_encoder.input_image_size
        scale_x = inner[1] / size[1] * built_w / self.image_size
        scale_y = inner[0] / size[0] * built_h / self.image_size
        return (xy + 0.5) * xy.new_tensor([scale_x, scale_y]) - 0.5

    def _embed_mask(self, mask: Tensor | None, inner: tuple[int, int], embedding: Tensor) -> Tensor:
        if mask is None:
            no_mask: Tensor = self.prompt_encoder.no_mask_embed.weight
            return no_mask.reshape(1, -1, 1, 1)
        resized = F.interpolate(mask.float(), size=inner, mode="bilinear", align_corners=False)
        padded = F.pad(resized, (0, self.image_size - inner[1], 0, self.image_size - inner[0]))
        low = [4 * side for side in embedding.shape[-2:]]
        low_res = F.interpolate(padded, size=low, mode="bilinear", align_corners=False, antialias=True)
        dense: Tensor = self.prompt_encoder.mask_downscaling(low_res)
        return dense


def _channel_mixer(channels: int) -> nn.Conv2d:
    """1x1 convolution to three channels; input i feeds output i modulo 3, each output an average."""
    mixer = nn.Conv2d(channels, 3, kernel_size=1, bias=False)
    with torch.no_grad():
        mixer.weight.zero_()
        for index in range(max(channels, 3)):
            mixer.weight[index % 3, index % channels] = 1.0
        mixer.weight /= mixer.weight.sum(dim=1, keepdim=True)
    return mixer
