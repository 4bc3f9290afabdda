"""From logits to probabilities: classes that exclude one another, and classes that may overlap."""

from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from topolora_monai.errors import unknown_choice

Activation = Literal["sigmoid", "softmax"]


def probabilities(logits: Tensor, activation: Activation) -> Tensor:
    """Probabilities of the K foreground classes.

    ``"softmax"`` is taken over the K logits and a background whose logit is 0, so that the classes exclude one
    another and what they leave to 1 is background. For one class it is the sigmoid. ``"sigmoid"`` judges each class
    by itself; classes may overlap. It is computed in float64, since torch's float32 depends, in the last bit, on where
    in memory a pixel lies and how many threads there are.

    Args:
        logits: shape (K, H, W) or (B, K, H, W).
        activation: ``"sigmoid"`` or ``"softmax"``.

    Returns:
        Shape and dtype of ``logits``, values in [0, 1].

    Raises:
        ConfigError: for another activation.

    Example:
        >>> import torch
        >>> logits = torch.tensor([2.0, 2.0]).log().view(2, 1, 1)
        >>> probabilities(logits, "softmax").flatten().tolist()  # odds of 2 : 2 : 1, the last one the background's
        [0.4000000059604645, 0.4000000059604645]
        >>> torch.allclose(probabilities(logits[:1], "softmax"), logits[:1].sigmoid())
        True
    """
    exact = logits if logits.device.type == "mps" else logits.double()  # which has no float64
    return activated(exact, activation).to(logits.dtype)


def activated(logits: Tensor, activation: Activation) -> Tensor:
    """As :func:`probabilities`, computed in the dtype of the logits, as graphs of exported networks do."""
    check_activation(activation)
    if activation == "sigmoid":
        return logits.sigmoid()
    return with_background(logits).softmax(dim=-3).narrow(-3, 1, logits.shape[-3])


def with_background(logits: Tensor) -> Tensor:
    """Logits with the background's, 0, in front: (..., K, H, W) to (..., K + 1, H, W)."""
    return F.pad(logits, (0, 0, 0, 0, 1, 0))


def check_activation(activation: str) -> None:
    """Refuse an unknown activation by a :class:`ConfigError`."""
    if activation not in get_args(Activation):
        raise unknown_choice("activation", activation, get_args(Activation))
