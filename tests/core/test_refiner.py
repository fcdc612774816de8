from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dreamsr.config import from_mapping, to_mapping
from dreamsr.core import resize
from dreamsr.core.backbones import config_classes
from dreamsr.core.backbones.refiner import RefinerConfig, from_grid, to_grid
from dreamsr.core.denoiser import Condition, Denoiser, Prediction
from dreamsr.core.device import Compute
from dreamsr.core.dream import dream_loss
from dreamsr.core.model import ModelConfig, build_denoiser, build_net
from dreamsr.core.process import ProcessConfig
from dreamsr.core.samplers import sample
from dreamsr.core.tiles import blend, tiles
from dreamsr.errors import ConfigError
from tests.core.oracles import images, noises

SMALL = RefinerConfig(encoder_channels=6, encoder_blocks=1, channels=(4, 6, 8), blocks_per_level=1)
UNSHUFFLED = replace(SMALL, unshuffle=2)
SIZES = [(1, 1), (1, 7), (2, 3), (5, 17), (8, 8)]
CPU = torch.device("cpu")


def refiner(
    *, scale: int = 2, fresh: bool = False, size: RefinerConfig = SMALL, dtype: torch.dtype = torch.float64
) -> Denoiser:
    """A small refiner; unless `fresh`, no weight is zero, as after training."""
    config = ModelConfig(scale=scale, sizes=size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build_net(config)
        if not fresh:
            for parameter in net.parameters():
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
    return build_denoiser(config, net.to(dtype).requires_grad_(False))


def run(denoiser: Denoiser, low: Tensor, *, steps: int = 2, seed: int = 1) -> Tensor:
    size = (low.shape[-2] * denoiser.scale, low.shape[-1] * denoiser.scale)
    noise = noises(len(low), seed=seed, size=size, dtype=low.dtype)
    return sample(denoiser, denoiser.condition(low), steps=steps, noise=lambda _step: noise, clip=False)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_any_size_is_enlarged_by_the_scale(size: tuple[int, int], scale: int) -> None:
    denoiser = refiner(scale=scale)
    low = images(2, size=size)
    condition = denoiser.condition(low)
    large = (2, 3, scale * size[0], scale * size[1])
    assert condition.y.shape == large
    out = run(denoiser, low)
    assert out.shape == large
    assert bool(out.isfinite().all())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("steps", [1, 3])
def test_fresh_refiner_returns_its_base_which_is_the_bicubic_enlargement(
    size: tuple[int, int], scale: int, steps: int
) -> None:
    denoiser = refiner(scale=scale, fresh=True)
    low = images(2, size=size)
    base = denoiser.condition(low).y
    assert torch.equal(base, resize.enlarge(low, scale))
    assert torch.equal(run(denoiser, low, steps=steps), base)


# A coarser grid


@pytest.mark.parametrize("size", [*SIZES, (9, 6), (7, 13)])
@pytest.mark.parametrize(
    ("scale", "sizes"), [(2, UNSHUFFLED), (3, UNSHUFFLED), (1, replace(SMALL, channels=(4, 6), unshuffle=4))]
)
def test_a_coarser_grid_takes_any_size_too(size: tuple[int, int], scale: int, sizes: RefinerConfig) -> None:
    denoiser = refiner(scale=scale, size=sizes)
    low = images(2, size=size)
    condition = denoiser.condition(low)
    large = (2, 3, scale * size[0], scale * size[1])
    assert condition.y.shape == large
    assert condition.features is not None
    assert condition.features.shape[-2:] == tuple(-(-side // sizes.unshuffle) for side in size)
    out = run(denoiser, low)
    assert out.shape == large
    assert bool(out.isfinite().all())
    fresh = refiner(scale=scale, size=sizes, fresh=True)
    assert torch.equal(run(fresh, low, steps=2), resize.enlarge(low, scale))


@pytest.mark.parametrize(("size", "cell"), [((4, 6), 2), ((5, 7), 2), ((1, 1), 4), ((3, 2), 1)])
def test_the_grid_loses_nothing(size: tuple[int, int], cell: int) -> None:
    image = images(2, size=size)
    grid = to_grid(image, cell)
    assert grid.shape == (2, 3 * cell**2, -(-size[0] // cell), -(-size[1] // cell))
    assert torch.equal(from_grid(grid, cell, like=image), image)


def test_the_right_and_bottom_edge_of_an_odd_picture_are_repeated() -> None:
    denoiser = refiner(size=UNSHUFFLED)
    low = images(1, size=(5, 7))
    padded = torch.nn.functional.pad(low, (0, 1, 0, 1), mode="replicate")
    narrow, wide = (denoiser.condition(one).features for one in (low, padded))
    assert narrow is not None
    assert wide is not None
    assert torch.equal(narrow, wide)


def test_a_coarser_grid_quarters_the_work() -> None:
    def work(unshuffle: int) -> int:
        denoiser = refiner(scale=2, size=replace(RefinerConfig(), unshuffle=unshuffle), dtype=torch.float32, fresh=True)
        low = images(1, size=(32, 32), dtype=torch.float32)
        with FlopCounterMode(display=False) as counter:
            run(denoiser, low, steps=1)
        return counter.get_total_flops()

    assert work(2) < 0.27 * work(1)


def test_old_nets_are_those_without_it() -> None:
    assert refiner().net.state_dict()["encoder.head.weight"].shape == (6, 3, 3, 3)
    header = to_mapping(ModelConfig(sizes=SMALL))
    del header["refiner"]["unshuffle"]
    assert from_mapping(ModelConfig, header, source="an old file") == ModelConfig(sizes=SMALL)


@pytest.mark.parametrize(("levels", "unshuffle"), [(3, 4), (4, 2), (1, 3), (1, 0), (1, 16)])
def test_a_grid_on_which_tiles_would_not_lie_is_refused(levels: int, unshuffle: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"refiner.unshuffle is {unshuffle}, but it must be one of .* {levels} levels"
    ):
        RefinerConfig(channels=(4,) * levels, unshuffle=unshuffle)


@pytest.mark.parametrize("unshuffle", [1, 2])
def test_tiles_give_what_the_whole_gives(unshuffle: int) -> None:
    """Odd sizes, so that the last tiles are padded as the whole is."""
    size = RefinerConfig(encoder_channels=6, encoder_blocks=0, channels=(6,), blocks_per_level=1, unshuffle=unshuffle)
    denoiser = refiner(size=size)
    low, noise = images(1, size=(101, 93)), noises(1, size=(202, 186))

    def enlarged(rows: slice, columns: slice) -> Tensor:
        part = low[..., rows, columns]
        large = (slice(2 * one.start, 2 * one.stop) for one in (rows, columns))
        near = noise[(..., *large)]
        return sample(denoiser, denoiser.condition(part), steps=1, noise=lambda _: near, clip=False)[0].float()

    whole = enlarged(slice(0, 101), slice(0, 93))
    results = (
        (tile, enlarged(slice(tile.rows.start, tile.rows.stop), slice(tile.columns.start, tile.columns.stop)))
        for tile in tiles(101, 93, scale=2, tile=72)
    )
    tiled = torch.full_like(whole, torch.nan)
    for patch in blend(results, 101, 93, scale=2):
        tall, wide = patch.pixels.shape[1:]
        tiled[:, patch.top : patch.top + tall, patch.left : patch.left + wide] = patch.pixels
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1 / 255)


def test_one_step_from_the_end_does_not_see_the_truth() -> None:
    denoiser = refiner()
    low, x0 = images(1, size=(4, 5)), images(1, seed=3, size=(8, 10))
    condition, end = denoiser.condition(low), torch.tensor([1000.0], dtype=torch.float64)
    eps = noises(1, size=(8, 10))
    outs = [denoiser(denoiser.process.corrupt(truth, condition.y, eps, end), condition, end) for truth in (x0, -x0)]
    torch.testing.assert_close(outs[0], outs[1], rtol=0, atol=1e-12)


def test_prediction_depends_on_the_image_the_features_the_noise_and_the_level() -> None:
    denoiser = refiner()
    low, other = images(1, size=(4, 5)), images(1, seed=8, size=(4, 5))
    condition, elsewhere = denoiser.condition(low), denoiser.condition(other)
    x_t, t = condition.y + noises(1, size=(8, 10)) * 0.1, torch.tensor([500.0])
    plain = denoiser(x_t, condition, t)
    changed = [
        denoiser(x_t + 0.1, condition, t),
        denoiser(x_t, Condition(condition.y, elsewhere.features), t),
        denoiser(x_t, Condition(elsewhere.y, condition.features), t),
        denoiser(x_t, condition, t / 2),
    ]
    assert all(float((out - plain).abs().max()) > 1e-3 for out in changed)


def test_detail_reaches_the_result_past_the_coarse_grid() -> None:
    denoiser = refiner()
    for parameter in denoiser.net.unet.ups.parameters():  # type: ignore[union-attr]
        nn.init.zeros_(parameter)
    condition, t = denoiser.condition(images(1, size=(4, 5))), torch.tensor([500.0])
    outs = [denoiser(condition.y + 0.1 * noises(1, seed=seed, size=(8, 10)), condition, t) for seed in (1, 2)]
    assert float((outs[0] - outs[1]).abs().max()) > 1e-3


def test_missing_features_are_an_error() -> None:
    denoiser = refiner()
    y = images(1, size=(4, 4))
    with pytest.raises(ValueError, match="features"):
        denoiser(y, Condition(y), torch.tensor([1.0]))


# Locality


def reach_px(size: RefinerConfig) -> int:
    """How far anything can matter to a pixel of the small grid: every 3x3 convolution adds 1, at its own scale."""
    encoder = 1 + 2 * size.encoder_blocks + 1
    base = 2  # the bicubic kernel's; the convolution beside it reaches 1
    levels = [2 * size.blocks_per_level * 2**i for i in range(len(size.channels))]
    unet = 1 + sum(levels) + sum(levels[:-1]) + 1
    grid = 2 ** (len(size.channels) - 1) - 1  # a coarse pixel stands for a whole cell
    return encoder + base + unet + grid


@pytest.mark.parametrize("levels", [(4,), (4, 6), (4, 6, 8)])
def test_inside_of_a_crop_on_the_coarse_grid_is_that_of_the_whole(levels: tuple[int, ...]) -> None:
    """A crop must start on the coarsest grid: elsewhere the strided convolutions see other neighbours."""
    size = RefinerConfig(encoder_channels=6, encoder_blocks=1, channels=levels, blocks_per_level=1)
    denoiser, reach = refiner(size=size), reach_px(size)
    cell = 2 ** (len(levels) - 1)
    top, left = 3 * cell, 2 * cell
    height, width = 2 * reach + 3, 2 * reach + 6
    low = images(1, size=(top + height + 9, left + width + 5))
    x_t = noises(1, size=(2 * low.shape[-2], 2 * low.shape[-1])) * 0.3
    t = torch.tensor([400.0], dtype=torch.float64)
    whole = denoiser(x_t, denoiser.condition(low), t)
    rows, columns = slice(top, top + height), slice(left, left + width)
    large_rows, large_columns = (slice(2 * part.start, 2 * part.stop) for part in (rows, columns))
    part = denoiser(x_t[..., large_rows, large_columns], denoiser.condition(low[..., rows, columns]), t)
    inner = slice(2 * reach, -2 * reach)
    expected = whole[..., large_rows, large_columns][..., inner, inner]
    assert expected.numel() > 0
    torch.testing.assert_close(part[..., inner, inner], expected, rtol=0, atol=1e-12)


# Independence


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_images_of_a_batch_do_not_touch_each_other(dtype: torch.dtype, tolerance: float) -> None:
    denoiser = refiner(dtype=dtype)
    low = images(3, size=(5, 6), dtype=dtype)
    noise = noises(3, size=(10, 12), dtype=dtype)

    def of(which: slice) -> Tensor:
        condition = denoiser.condition(low[which])
        return sample(denoiser, condition, steps=3, noise=lambda _step: noise[which], clip=False)

    together = of(slice(0, 3))
    for i in range(3):
        torch.testing.assert_close(of(slice(i, i + 1)), together[i : i + 1], rtol=0, atol=tolerance)


def test_same_input_gives_the_same_bytes() -> None:
    denoiser, low = refiner(dtype=torch.float32), images(2, size=(5, 6), dtype=torch.float32)
    assert torch.equal(run(denoiser, low), run(denoiser, low))


def test_same_seed_builds_the_same_net() -> None:
    first, second = (refiner(fresh=True).net.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_inputs_are_left_alone() -> None:
    denoiser, low = refiner(), images(1, size=(4, 4))
    before = low.clone()
    condition = denoiser.condition(low)
    y = condition.y.clone()
    denoiser(condition.y, condition, torch.tensor([5.0]))
    assert torch.equal(low, before)
    assert torch.equal(condition.y, y)


# Size, training, precision


def test_default_has_3_to_10_million_parameters() -> None:
    with torch.device("meta"):
        net = build_net(ModelConfig())
    assert 3e6 < sum(parameter.numel() for parameter in net.parameters()) < 10e6


def test_every_backbone_of_the_configuration_can_be_built() -> None:
    with torch.device("meta"):
        nets = {name: build_net(ModelConfig(backbone=name)) for name in config_classes()}
    assert {"refiner", "sr3", "idm", "resshift"} <= set(nets)
    assert all(net.scale == 4 for net in nets.values())


@pytest.mark.parametrize("sizes", [SMALL, UNSHUFFLED])
@pytest.mark.parametrize(
    ("prediction", "process"),
    [("x0", ProcessConfig()), ("v", ProcessConfig()), ("eps", ProcessConfig(kind="gaussian", schedule="cosine"))],
)
def test_every_parameter_learns(prediction: Prediction, process: ProcessConfig, sizes: RefinerConfig) -> None:
    """Much starts at zero and wakes in turn: the exit, the blocks' ends, their beginnings, the level's embedding."""
    config = ModelConfig(scale=2, sizes=sizes, prediction=prediction, process=process)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = build_denoiser(config, build_net(config))
    named = dict(denoiser.net.named_parameters())
    optimizer = torch.optim.Adam(named.values(), lr=1e-2)
    low, x0 = images(4, size=(6, 6), dtype=torch.float32), images(4, seed=3, size=(12, 12), dtype=torch.float32)
    eps, t = noises(4, size=(12, 12), dtype=torch.float32), torch.tensor([100.0, 400.0, 700.0, 1000.0])
    for _ in range(5):
        condition = denoiser.condition(low)
        losses = dream_loss(denoiser, x0, condition.detached(), eps, t, power=1.0)
        assert losses.shape == (4,)
        loss = (condition.y - x0).abs().mean() + losses.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    still = [name for name, p in named.items() if p.grad is None or not bool(p.grad.any())]
    assert still == []


def test_training_on_one_image_lowers_the_loss() -> None:
    config = ModelConfig(scale=2, sizes=SMALL)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = build_denoiser(config, build_net(config))
    optimizer = torch.optim.Adam(denoiser.net.parameters(), lr=1e-2)
    x0 = images(1, seed=3, size=(12, 12), dtype=torch.float32)
    low = resize.shrink(x0, 2)
    eps, t = noises(1, size=(12, 12), dtype=torch.float32), torch.tensor([500.0])
    history = []
    for _ in range(40):
        condition = denoiser.condition(low)
        loss = (condition.y - x0).abs().mean() + dream_loss(
            denoiser, x0, condition.detached(), eps, t, power=1.0
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.7 * history[0]


def test_base_is_not_taught_by_the_step() -> None:
    denoiser = refiner()
    denoiser.net.requires_grad_(True)
    condition = denoiser.condition(images(1, size=(4, 4))).detached()
    x0, eps, t = images(1, seed=3, size=(8, 8)), noises(1, size=(8, 8)), torch.tensor([500.0])
    dream_loss(denoiser, x0, condition, eps, t, power=1.0).sum().backward()
    gradients = {name: parameter.grad for name, parameter in denoiser.net.named_parameters()}
    assert gradients["base.weight"] is None
    assert gradients["encoder.head.weight"] is not None


def test_bfloat16_is_close_to_float32() -> None:
    denoiser = refiner(dtype=torch.float32)
    low = images(2, size=(6, 7), dtype=torch.float32)
    exact = run(denoiser, low)
    denoiser.compute = Compute(CPU, torch.bfloat16, "as the test asks")
    coarse = run(denoiser, low)
    assert coarse.dtype == torch.float32
    assert not torch.equal(coarse, exact)
    torch.testing.assert_close(coarse, exact, rtol=0, atol=0.03)


def test_float32_is_close_to_float64() -> None:
    low = images(2, size=(6, 7))
    single = run(refiner(dtype=torch.float32), low.float())
    torch.testing.assert_close(single.double(), run(refiner(), low), rtol=0, atol=1e-5)
