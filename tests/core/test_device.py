from __future__ import annotations

import pytest
import torch

from dreamsr.core import device as module
from dreamsr.core.device import Compute, available_devices, choose_compute, cpu_features, has_cpu_bf16
from dreamsr.errors import DeviceError


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with a CPU alone, which has no bfloat16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(module, "cpu_features", lambda: {"avx2": True, "avx512_bf16": False})
    return monkeypatch


@pytest.fixture
def two_gpus(bare: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with an old GPU and a new one."""
    bare.setattr(torch.cuda, "is_available", lambda: True)
    bare.setattr(torch.cuda, "device_count", lambda: 2)
    bare.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5) if device.index == 0 else (8, 0))
    return bare


@pytest.mark.parametrize("precision", ["auto", "bf16", "fp32"])
def test_cpu_can_always_be_chosen(precision: str) -> None:
    compute = choose_compute("cpu", precision)  # type: ignore[arg-type]
    assert compute.device == torch.device("cpu")
    assert "cpu as asked" in compute.reason
    with compute.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == compute.dtype


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_precision_asked_for_is_given(precision: str, dtype: torch.dtype) -> None:
    compute = choose_compute("cpu", precision)  # type: ignore[arg-type]
    assert compute.dtype == dtype
    assert "as asked" in compute.reason.split(";")[1]


@pytest.mark.usefixtures("bare")
def test_auto_falls_back_to_the_cpu_in_float32_and_says_why() -> None:
    compute = choose_compute()
    assert (compute.device.type, compute.dtype) == ("cpu", torch.float32)
    assert "no better device" in compute.reason
    assert "no bfloat16" in compute.reason


@pytest.mark.parametrize("feature", ["avx512_bf16", "amx_bf16", "arm_bf16", "bf16"])
def test_auto_takes_bfloat16_where_the_cpu_has_it(bare: pytest.MonkeyPatch, feature: str) -> None:
    bare.setattr(module, "cpu_features", lambda: {feature: True})
    assert choose_compute("cpu").dtype == torch.bfloat16


def test_cpu_of_an_old_torch_is_taken_to_have_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert cpu_features() == {}
    assert not has_cpu_bf16()


@pytest.mark.usefixtures("two_gpus")
def test_auto_takes_the_first_gpu() -> None:
    assert available_devices() == ["cuda:0", "cuda:1", "cpu"]
    assert choose_compute().device == torch.device("cuda:0")
    assert choose_compute("cuda").device == torch.device("cuda:0")


@pytest.mark.usefixtures("two_gpus")
def test_bfloat16_depends_on_the_gpu_named() -> None:
    assert choose_compute("cuda:0").dtype == torch.float32
    assert choose_compute("cuda:1").dtype == torch.bfloat16


def test_mps_comes_before_the_cpu_and_computes_in_float32(bare: pytest.MonkeyPatch) -> None:
    bare.setattr(torch.backends.mps, "is_available", lambda: True)
    assert available_devices() == ["mps", "cpu"]
    compute = choose_compute()
    assert (compute.device.type, compute.dtype) == ("mps", torch.float32)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cuda", "cuda:0", "mps", "xpu", "meta"])
def test_unknown_or_missing_device_is_an_error_that_lists_the_possible_ones(name: str) -> None:
    with pytest.raises(DeviceError) as caught:
        choose_compute(name)
    assert repr(name) in str(caught.value)
    assert "possible here: auto, cpu" in str(caught.value)


@pytest.mark.usefixtures("two_gpus")
def test_gpu_number_out_of_range_is_an_error_that_lists_the_possible_ones() -> None:
    with pytest.raises(DeviceError, match="'cuda:5' is not available; possible here: auto, cuda:0, cuda:1, cpu"):
        choose_compute("cuda:5")


def test_float32_compute_switches_an_outer_autocast_off() -> None:
    compute = Compute(torch.device("cpu"), torch.float32, "as the test asks")
    with torch.autocast("cpu", torch.bfloat16), compute.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
