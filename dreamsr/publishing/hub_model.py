"""Weights as a torch module with the Hub's usual methods.

    model = HubModel.from_pretrained("user/repo")              # what `dreamsr weights push` or push_to_hub wrote
    large = model(low)                                         # [B,3,h,w] in [-1,1] -> [B,3,H,W]
    model.push_to_hub("user/other")

A repository holds config.json, model.safetensors (with the same configuration in its header) and a model card.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData, PyTorchModelHubMixin
from torch import Tensor, nn

from dreamsr.config import from_mapping, to_mapping
from dreamsr.core.model import ModelConfig, build_denoiser, build_net
from dreamsr.core.noise import NoiseField
from dreamsr.core.samplers import restore
from dreamsr.disk import json_text, read_json
from dreamsr.errors import WeightsError
from dreamsr.publishing.card import LIBRARY, TAGS
from dreamsr.weights.file import FILE_NAME, load_weights, save_weights
from dreamsr.weights.resolve import obtain, parse_reference
from dreamsr.weights.transfer import HubFile

CONFIG = "config.json"


class HubModel(nn.Module, PyTorchModelHubMixin, library_name=LIBRARY, tags=list(TAGS), pipeline_tag="image-to-image"):
    """A net with its configuration; `config` may be the content of a config.json, `net` an existing net.

    Raises ConfigError for an impossible configuration.
    """

    def __init__(
        self,
        config: ModelConfig | Mapping[str, Any],
        net: nn.Module | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.config = config if isinstance(config, ModelConfig) else from_mapping(ModelConfig, config, source=CONFIG)
        self.net = build_net(self.config) if net is None else net
        self.facts = dict(facts or {})

    def forward(self, low: Tensor, *, steps: int = 4, seed: int = 0) -> Tensor:
        """low [B,3,h,w] in [-1,1] -> [B,3,H,W], H = scale*h; for files, tiles and memory see `dreamsr.Upscaler`."""
        denoiser = build_denoiser(self.config, self.net)
        height, width = (self.config.scale * n for n in low.shape[-2:])
        field = NoiseField(seed)

        def noise(step: int) -> Tensor:
            return field.window(step, 0, 0, height, width).to(low).expand(len(low), -1, -1, -1)  # [B,3,H,W]

        return restore(denoiser, low, steps=steps, noise=noise)

    def _save_pretrained(self, save_directory: Path) -> None:
        state = self.net.state_dict()
        save_weights(save_directory / FILE_NAME, state, self.config, facts=self.facts, dtype=torch.float32)
        (save_directory / CONFIG).write_text(json_text(to_mapping(self.config), indent=2) + "\n")

    @classmethod
    def from_pretrained(  # type: ignore[override]  # no options of a constructor: the header says it all
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> HubModel:
        """A folder's or repository's model, fetched as `dreamsr weights pull` does. Raises WeightsError, DownloadError.

        The configuration is that of the weights' header; a folder's config.json must agree with it.
        """
        name = str(pretrained_model_name_or_path)
        folder = Path(name)
        if folder.is_dir():
            path = folder / FILE_NAME
        else:
            path = _fetched(name, revision, cache_dir, token, anew=force_download, offline=local_files_only)
        weights = load_weights(path)
        if folder.is_dir() and (folder / CONFIG).exists():
            _require_equal(folder / CONFIG, weights.config)
        model = cls(weights.config, weights.net, weights.facts)
        return model.eval().requires_grad_(True)  # as the mixin's own models come

    def generate_model_card(self, *_: Any, **__: Any) -> ModelCard:
        """A short card; `dreamsr weights push` writes the full one, with training and measurements."""
        data = ModelCardData(library_name=LIBRARY, pipeline_tag="image-to-image", tags=list(TAGS))
        text = (
            f"{self.config.scale}x super-resolution with the {self.config.backbone} backbone of dreamsr.\n\n"
            "```python\nfrom dreamsr.publishing.hub_model import HubModel\n\n"
            'model = HubModel.from_pretrained("user/repo")\n```\n'
        )
        return ModelCard(f"---\n{data.to_yaml()}\n---\n\n# dreamsr x{self.config.scale}\n\n{text}")


def _fetched(
    name: str,
    revision: str | None,
    cache_dir: str | Path | None,
    token: str | bool | None,
    *,
    anew: bool,
    offline: bool,
) -> Path:
    reference = parse_reference(f"{name}@{revision}" if revision else name)
    if reference is None:
        raise WeightsError(f"{name}: no folder of that name, and not user/repo on the Hub")
    cache = Path(cache_dir) if cache_dir is not None else None
    source = HubFile(name, reference.repo, reference.revision, reference.file, cache=cache, token=token)
    return obtain(source, lambda _: None, None, refresh=not offline, anew=anew)


def _require_equal(path: Path, config: ModelConfig) -> None:
    """Raise WeightsError unless a config.json says the same as the weights beside it."""
    try:
        described = from_mapping(ModelConfig, read_json(path), source=CONFIG)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: not readable ({error})") from None
    if described != config:
        raise WeightsError(f"{path.parent}: {CONFIG} and the header of {FILE_NAME} describe different nets")
