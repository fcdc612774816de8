"""The model card of published weights: README.md of a Hub repository, written from what the run recorded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import dreamsr
from dreamsr.config import to_mapping
from dreamsr.core.model import ModelConfig
from dreamsr.disk import json_text
from dreamsr.weights.registry import MeasuredRow, WeightsEntry

LIBRARY = "dreamsr"
TAGS = ("super-resolution", "image-upscaling", "diffusion", "DREAM")
# Those of the Hub's licence identifiers that weights are likely to bear; any other is named as "other".
HUB_LICENCES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "gpl-3.0", "agpl-3.0", "lgpl-3.0", "mpl-2.0"),
    *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "openrail", "unlicense"),
)
PAPER = "https://arxiv.org/abs/2312.00210"


def model_card(
    entry: WeightsEntry, config: ModelConfig, facts: Mapping[str, Any], *, reference: str, has_sample: bool
) -> str:
    """README.md as text: metadata for the Hub, then what people need to know before they use the weights."""
    parts = [
        f"---\n{_metadata(entry)}\n---",
        f"# {entry.name}\n\n{entry.description}",
        _sample() if has_sample else "",
        _usage(entry, reference),
        _training(entry, facts),
        _measured(entry.metrics),
        _limits(entry),
        _facts(entry, config, facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _metadata(entry: WeightsEntry) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    identifier = entry.licence.lower()
    known = identifier in HUB_LICENCES
    results = [
        EvalResult(
            task_type="image-to-image",
            dataset_type=str(row["dataset"]).lower().replace(" ", "-"),
            dataset_name=f"{row['dataset']} ({row['protocol']})",
            metric_type=key,
            metric_value=value,
        )
        for row in entry.metrics
        for key, value in _numbers(row).items()
    ]
    options: dict[str, Any] = {"eval_results": results, "model_name": entry.name} if results else {}
    data = ModelCardData(
        library_name=LIBRARY,
        pipeline_tag="image-to-image",
        license=identifier if known else "other",
        license_name=None if known else identifier,
        tags=list(TAGS),
        **options,
    )
    return str(data.to_yaml()).strip()


def _sample() -> str:
    return "![bicubic, these weights, the original](sample.png)\n\nBicubic, these weights, the original."


def _usage(entry: WeightsEntry, reference: str) -> str:
    return f"""## Use

```
pip install dreamsr
dreamsr upscale photo.jpg -s {entry.scale} --steps {entry.steps} --weights {reference}
```

```python
import dreamsr

large = dreamsr.upscale("photo.jpg", scale={entry.scale}, weights="{reference}")
```"""


def _training(entry: WeightsEntry, facts: Mapping[str, Any]) -> str:
    lines = [
        f"- Data: {entry.training_data}",
        f"- Its licence: {entry.training_data_licence}",
        f"- Small pictures made by: {entry.degradation}",
        f"- {_dream(facts)}",
    ]
    train = facts.get("train")
    if isinstance(train, Mapping):
        steps = facts.get("steps", train.get("max_steps"))
        lines.append(f"- {steps} steps of {train.get('batch_size')} crops, learning rate {train.get('learning_rate')}")
        lines.append(f"- Seed {train.get('seed')}; the weights are the moving average of the run")
    return "## Training\n\n" + "\n".join(lines)


def _dream(facts: Mapping[str, Any]) -> str:
    train = facts.get("train")
    dream = train.get("dream") if isinstance(train, Mapping) else None
    if not isinstance(dream, Mapping):
        return "DREAM: not recorded"
    power = float(dream.get("power", math.inf))
    if not math.isfinite(power):
        return "DREAM: not used (plain training)"
    return f"DREAM ([arXiv 2312.00210]({PAPER})): power p = {power:g}, from step {dream.get('start', 0)}"


def _measured(metrics: Sequence[MeasuredRow]) -> str:
    if not metrics:
        return "## Measured\n\nNot measured yet."
    names = list(dict.fromkeys(key for row in metrics for key in _numbers(row)))
    lines = [
        _row(["dataset", "protocol", *names]),
        _row(["---"] * (2 + len(names))),
        *(_row([str(row.get(key, "")) for key in ("dataset", "protocol", *names)]) for row in metrics),
    ]
    return "## Measured\n\n" + "\n".join(lines)


def _numbers(row: MeasuredRow) -> dict[str, int | float]:
    return {key: value for key, value in row.items() if isinstance(value, int | float)}


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _limits(entry: WeightsEntry) -> str:
    return (
        "## Limits\n\nEnlarged detail is a guess: do not take faces, text or number plates in the result for evidence. "
        f"Trained for small pictures made by {entry.degradation}; what else happened to a picture is not mended."
    )


def _facts(entry: WeightsEntry, config: ModelConfig, facts: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{key} {facts[key]}" for key in ("dreamsr", "torch", "device") if key in facts)
    return (
        f"## Facts\n\nLicence of the weights: {entry.licence}. "
        f"Written by dreamsr {dreamsr.__version__}{f'; trained with {versions}' if versions else ''}.\n\n"
        f"`{entry.file}`: {entry.size_bytes} bytes, sha256 `{entry.sha256}`.\n\n"
        f"```json\n{json_text(to_mapping(config), indent=2)}\n```"
    )
