"""From the source bundle's configuration to that of one trained network, as MONAI's model zoo takes bundles."""

import copy
import re
from typing import Any

import topolora_monai
from topolora_monai.data import BENCHMARKS
from topolora_monai.data.benchmark import Facts
from topolora_monai.model.network import MODEL_FILE, WEIGHTS_FILE
from topolora_monai.networks import network_extra
from topolora_monai.spec import ModelSpec

_PACKAGE = topolora_monai.__name__

_FROM_RUN = ("adapter", "weights", "adaptation")
"""Ids that only make sense beside a run."""
_KEEPING_KEYS = "$[lambda item: {**item, **@loading(item)}]"
"""Applications find what they added to an item again."""
_MASK = "$lambda p: torch.from_numpy(topolora_monai.model.writing.mask_of(p, @threshold, @spec.activation))"
_MODEL = f"$@bundle_root + '/{WEIGHTS_FILE}'"


def inference_config(source: dict[str, Any], spec: ModelSpec) -> dict[str, Any]:
    """The merged network in place of base and adapter, and what it is from a file in place of the adapter's header.

    Nothing that a file says stands in the configuration itself, where MONAI would take text that begins with ``$``,
    ``@`` or ``%`` for its own.

    ``postprocessing`` makes masks of columns by rows, as MONAI's own loaders give images and as applications that read
    this file alone expect; probabilities stay beside them, for the bundle's own run.

    Args:
        source: the source bundle's ``inference.yaml``.
        spec: of the model.
    """
    config = {key: value for key, value in copy.deepcopy(source).items() if key not in _FROM_RUN}
    config["imports"] = [*config["imports"], "$import topolora_monai.model.writing", "$import topolora_monai.release"]
    config["spec"] = f"$topolora_monai.adapters.read_spec(@bundle_root + '/{MODEL_FILE}')"
    config["model"] = _MODEL
    config["network_def"] = {"_target_": "topolora_monai.release.merged_network", "spec": "@model_spec"}
    config["network"] = "$topolora_monai.release.load_model(@network_def, @model).to(@device)"
    config["preprocessing"]["transforms"] = _KEEPING_KEYS
    overlapping = spec.out_channels > 1 and not spec.exclusive
    probability = {"_target_": "CopyItemsd", "keys": "pred", "names": "probability"}
    config["postprocessing"]["transforms"] = [
        *config["postprocessing"]["transforms"],
        probability,
        {"_target_": "Lambdad", "keys": "pred", "func": _MASK},
        {"_target_": "Transposed", "keys": "pred", "indices": [0, 2, 1] if overlapping else [1, 0]},
    ]
    config["handlers"][0]["key"] = "probability"
    return config


def data_facts(spec: ModelSpec) -> Facts | None:
    """What is known about the data that a model was trained on; None where they are no public data set."""
    known = BENCHMARKS.get(spec.dataset or "")
    return known.facts if known else None


def metadata(source: dict[str, Any], name: str, spec: ModelSpec, record: dict[str, Any]) -> dict[str, Any]:
    """The source bundle's ``metadata.json`` with the task, labels, pixel scale and scores of a run's ``summary.json``.

    All packages stand under ``required_packages_version``, whose entries become lines ``NAME==VERSION`` for pip, and
    this one with the extra that the network needs. MONAI would take ``optional_packages_version`` in its place.

    MONAI reads metadata as a part of the configuration: text that it would take for its own gets an invisible character
    in front.
    """
    described = copy.deepcopy(source)
    foreground, dataset = ", ".join(spec.labels[1:]), spec.dataset or "data that nothing is known of"
    test = record["test"]
    described["name"] = name
    described["changelog"] = {source["version"]: f"released from a run of {spec.network_name}"}
    needed = {key: version for key, version in source["required_packages_version"].items() if key != _PACKAGE}
    extra = network_extra(spec.network_name)
    package = f"{_PACKAGE}[{extra}]" if extra else _PACKAGE
    described["required_packages_version"] = {package: topolora_monai.__version__, **needed}
    described["task"] = f"Segmentation of {foreground}"
    known = {"Dice": test.get("dice"), "clDice": test.get("cldice")}
    shown = [f"{title} {score:.3f}" for title, score in known.items() if score is not None]
    described["description"] = (
        f"{spec.network_name} adapted by {spec.preset} to {dataset}: a prompt-free segmenter of {foreground}."
        + (f" Test {', '.join(shown)}." if shown else "")
    )
    facts = data_facts(spec)
    source_of_data = f"{facts.title}, {facts.homepage}" if facts else dataset
    described["data_source"] = source_of_data + (f" ({spec.partial})" if spec.partial else "")
    described["label_classes"] = ", ".join(f"{number} {label}" for number, label in enumerate(spec.labels))
    described["eval_metrics"] = {key: value for key, value in test.items() if isinstance(value, float)}
    described["pixel_scale"] = spec.pixel_scale
    described["eval_metrics"] |= {
        f"{score}_{label}": value
        for label, scores in test.get("classes", {}).items()
        for score, value in scores.items()
        if value is not None
    }
    described |= {"threshold": spec.threshold, "temperature": spec.temperature}
    data_format = described["network_data_format"]
    image = data_format["inputs"]["image"]
    image["num_channels"] = spec.in_channels
    image["modality"] = facts.modality if facts else "n/a"
    described["image_classes"] = f"2-D images as those of {dataset}, {spec.in_channels} channels in [0, 1]"
    if spec.in_channels != len(image["channel_def"]):
        image["channel_def"] = {str(number): f"channel {number}" for number in range(spec.in_channels)}
        image["format"] = "magnitude"
    pred = data_format["outputs"]["pred"]
    image["spatial_shape"] = pred["spatial_shape"] = [spec.crop_size, spec.crop_size]
    pred["num_channels"] = spec.out_channels
    if spec.out_channels > 1:
        described["pred_classes"] = f"one logit map for each of {foreground}"
    pred["channel_def"] = {str(number): label for number, label in enumerate(spec.labels)}
    plain: dict[str, Any] = _plain(described)
    return plain


def _plain(value: Any) -> Any:
    """No text that MONAI would resolve: expressions, references, macros, and relative ids anywhere in it.

    Example:
        >>> _plain({"a": ["$100", "notes @ home", "@home", "a@#b"]})
        {'a': ['\u2060$100', 'notes @ home', '\u2060@home', 'a@\u2060#b']}
    """
    if isinstance(value, dict):
        return {_plain(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if not isinstance(value, str):
        return value
    apart = re.sub(r"([@%])(?=#|::)", "\\1\u2060", value)
    return f"\u2060{apart}" if apart[:1] in ("$", "@", "%") else apart
