"""The files an image's answer is looked at with: input, truth, prediction, probability, each a picture of its own."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from topolora_monai.io.pictures import write_png


class ClassLayers(NamedTuple):
    """Files of one class of one image; None where there is none."""

    truth: Path | None = None
    prediction: Path | None = None
    probability: Path | None = None
    uncertainty: Path | None = None


class ImageLayers(NamedTuple):
    """Files of one image.

    Args:
        input: what the network saw.
        fov: what was scored, where not everything was.
        classes: one for each class, the background left out.
    """

    input: Path | None
    fov: Path | None
    classes: list[ClassLayers]


def write_layers(
    folder: str | Path,
    image: NDArray[np.float32],
    truth: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    probability: NDArray[np.float32],
    fov: NDArray[np.bool_],
    uncertainty: NDArray[np.float32] | None = None,
) -> None:
    """Write ``input.png``, ``truth.png``, ``prediction.png`` and ``probability.png`` of one image.

    They are to look at: 8 bits each, masks black and white. ``fov.png`` is there when some pixels were not scored, and
    ``uncertainty.png`` when it is known. Of several classes all but the input and the field of view have a number, as
    ``truth_1.png``.

    Args:
        folder: the image's own; created.
        image: shape (C, H, W), the first three channels are shown, or one as grey; values in [0, 1].
        truth: shape (K, H, W).
        prediction: same shape.
        probability: same shape, values in [0, 1].
        fov: shape (H, W).
        uncertainty: shape (K, H, W), values in [0, 1].

    Raises:
        OSError: if they cannot be written.

    Example:
        >>> import tempfile
        >>> folder, mask = Path(tempfile.mkdtemp()), np.ones((1, 4, 6), bool)
        >>> write_layers(folder / "a", np.zeros((3, 4, 6), np.float32), mask, mask, mask.astype(np.float32), mask[0])
        >>> sorted(path.name for path in (folder / "a").iterdir())
        ['input.png', 'prediction.png', 'probability.png', 'truth.png']
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shown = image[:3].transpose(1, 2, 0) if image.shape[0] >= 3 else image[0]
    write_png(_eight_bits(shown), folder / "input.png")
    if not fov.all():
        write_png(_eight_bits(fov), folder / "fov.png")
    layers = dict(zip(ClassLayers._fields, (truth, prediction, probability, uncertainty), strict=True))
    for name, of_classes in layers.items():
        for number, layer in enumerate(() if of_classes is None else of_classes, start=1):
            write_png(_eight_bits(layer), folder / _file_name(name, number, len(truth)))


def find_layers(folder: str | Path, classes: int = 1) -> ImageLayers:
    """Files of one image, as :func:`write_layers` left them.

    Args:
        folder: the image's own; it may be missing.
        classes: how many there are beside the background.
    """

    def existing(name: str) -> Path | None:
        path = Path(folder, name)
        return path if path.is_file() else None

    each = [
        ClassLayers(*(existing(_file_name(name, number, classes)) for name in ClassLayers._fields))
        for number in range(1, classes + 1)
    ]
    return ImageLayers(existing("input.png"), existing("fov.png"), each)


def _file_name(name: str, number: int, classes: int) -> str:
    return f"{name}.png" if classes == 1 else f"{name}_{number}.png"


def _eight_bits(values: NDArray[np.float32] | NDArray[np.bool_]) -> NDArray[np.uint8]:
    scaled: NDArray[np.uint8] = np.rint(np.clip(values.astype(np.float32), 0, 1) * 255).astype(np.uint8)
    return scaled
