"""Weights as a torch module with the Hub's usual methods.

    model = HubModel.from_pretrained("user/repo")              # what `dreamsr weights push` or push_to_hub wrote
    large = model(low)                                         # [B,3,h,w] in [-1,1] -> [B,3,H,W]
    model.push_to_hub("user/other")

A repository holds config.json, model.safetensors (with the same configuration in its header) and a model card.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData, PyTorchModelHubMixin, hf_hub_download
from torch import Tensor, nn

from dreamsr.config import ModelConfig, from_mapping, to_mapping
from dreamsr.core.backbones import build_denoiser, build_net
from dreamsr.core.noise import NoiseField
from dreamsr.core.samplers import sample
from dreamsr.errors import WeightsError
from dreamsr.files.hub_access import Arrived, bounded, progress_class
from dreamsr.files.weights import FILE_NAME, load_weights, save_weights
from dreamsr.tasks.card import LIBRARY, TAGS

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

        return sample(denoiser, denoiser.condition(low), steps=steps, noise=noise)

    def _save_pretrained(self, save_directory: Path) -> None:
        state = self.net.state_dict()
        save_weights(save_directory / FILE_NAME, state, self.config, facts=self.facts, dtype=torch.float32)
        (save_directory / CONFIG).write_text(json.dumps(to_mapping(self.config), indent=2) + "\n")

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        config: Any = None,
        **_: Any,
    ) -> HubModel:
        path = Path(model_id) / FILE_NAME
        if not Path(model_id).is_dir():
            arrived, given_up = Arrived(), threading.Event()
            options: dict[str, Any] = {
                "revision": revision,
                "cache_dir": cache_dir,
                "force_download": force_download,
                "local_files_only": local_files_only,
                "token": token,
                "tqdm_class": progress_class(arrived, given_up),
            }
            found = bounded(
                model_id,
                model_id,
                lambda: hf_hub_download(model_id, FILE_NAME, **options),
                signs=lambda: arrived.count,
                given_up=given_up,
            )
            path = Path(found)
        weights = load_weights(path)
        if config is not None and from_mapping(ModelConfig, config, source=CONFIG) != weights.config:
            raise WeightsError(f"{model_id}: {CONFIG} and the header of {FILE_NAME} describe different nets")
        model = cls(weights.config, weights.net, weights.facts)
        return model.eval().requires_grad_(True)  # as the mixin's own models come

    def generate_model_card(self, *_: Any, **__: Any) -> ModelCard:
        """A short card; `dreamsr weights push` writes the full one, with training and measurements."""
        data = ModelCardData(library_name=LIBRARY, pipeline_tag="image-to-image", tags=list(TAGS))
        text = (
            f"{self.config.scale}x super-resolution with the {self.config.backbone} backbone of dreamsr.\n\n"
            "```python\nfrom dreamsr.tasks.pretrained import HubModel\n\n"
            'model = HubModel.from_pretrained("user/repo")\n```\n'
        )
        return ModelCard(f"---\n{data.to_yaml()}\n---\n\n# dreamsr x{self.config.scale}\n\n{text}")
