"""What a study says of figures that are made up: who is better, how sure that is, and when there is no result."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from dreamsr.bench.stats import crossed_interval, interval, paired_over_seeds
from dreamsr.data.sources import DataSource
from dreamsr.measure.metrics import CONSISTENCY, DISTS, LPIPS_ALEX, PSNR_Y, SSIM_Y
from dreamsr.study.arms import Studio, StudyPlan
from dreamsr.study.report import Figures, StudiedNet, SystemReport, in_words, is_trained_enough
from dreamsr.study.study import BICUBIC, FLAT
from dreamsr.study.systems import Arm

PLAIN, DREAM = Arm("resshift", math.inf, 0), Arm("resshift", 1.0, 0)
PLAN = StudyPlan((PLAIN, DREAM), max_steps=100, sample_steps=(5, 15), curve_steps=5)
CROPS = 40
RNG = np.random.default_rng(0)
HARD = RNG.normal(0, 1, CROPS)
"""How hard each crop is, for all alike."""


def values(mean, spread=0.05):
    """Two seeds of a net: a value for each crop, most of whose variance is the crop's."""
    return {seed: list(mean * (1 + 0.3 * HARD) + RNG.normal(0, spread * mean, CROPS)) for seed in (0, 1)}


def figures(lpips, consistency, *, bicubic=(0.3, 40.0), **leave_out):
    """Of (kind, length, steps) -> mean LPIPS and consistency."""
    tables = {LPIPS_ALEX.key: {}, CONSISTENCY.key: {}, PSNR_Y.key: {}, SSIM_Y.key: {}, DISTS.key: {}}
    for key, means in ((LPIPS_ALEX.key, lpips), (CONSISTENCY.key, consistency)):
        tables[key] = {StudiedNet(*net): values(mean) for net, mean in means.items()}
    levels = dict(zip((LPIPS_ALEX.key, CONSISTENCY.key), bicubic, strict=True))
    others = {
        key: {name: values(levels[key])[0] for name in (BICUBIC, FLAT)} if key in levels else {} for key in tables
    }
    for key in leave_out.get("without", ()):
        tables[key], others[key] = {}, {}
    return Figures(tables, others)


def report(found, tmp_path):
    (tmp_path / "overhead-resshift.json").write_text(json.dumps({"ratio": 1.25}))
    studio = Studio(PLAN, DataSource(data="nowhere"), tmp_path)
    return SystemReport(studio, found, "resshift", [PLAIN, DREAM])


NETS = [(arm.kind, length, steps) for arm in (PLAIN, DREAM) for length in (50, 80, 100) for steps in (5, 15)]


def test_no_result_where_no_net_beats_bicubic_in_lpips_and_consistency(tmp_path):
    better, worse = dict.fromkeys(NETS, 0.2), dict.fromkeys(NETS, 0.4)
    close, far = dict.fromkeys(NETS, 20.0), dict.fromkeys(NETS, 3000.0)
    verdicts = {
        (True, True): report(figures(better, close), tmp_path),
        (True, False): report(figures(better, far), tmp_path),
        (False, True): report(figures(worse, close), tmp_path),
    }
    for (looks, holds), found in verdicts.items():
        text = "\n".join(found.lines())
        assert found.verdict() == ("result" if looks and holds else "not trained enough")
        assert ("result" in text) == (looks and holds)
        assert ("DREAM minus plain" in text) == (looks and holds)


def test_one_net_must_be_better_in_both_at_once(tmp_path):
    lpips = {net: 0.2 if net[2] == 5 else 0.4 for net in NETS}
    consistency = {net: 3000.0 if net[2] == 5 else 20.0 for net in NETS}
    assert report(figures(lpips, consistency), tmp_path).verdict() == "not trained enough"
    assert is_trained_enough(figures(lpips, dict.fromkeys(NETS, 20.0)), [StudiedNet(*net) for net in NETS])


def test_without_lpips_nothing_is_judged(tmp_path):
    found = figures(dict.fromkeys(NETS, 0.2), dict.fromkeys(NETS, 20.0), without=(LPIPS_ALEX.key,))
    assert report(found, tmp_path).verdict() == "not judged, LPIPS is missing"


def test_claims_compare_equal_steps_equal_time_half_the_training_and_fewer_steps(tmp_path):
    lpips = {net: 0.2 if net[0] == DREAM.kind else 0.25 for net in NETS}
    found = report(figures(lpips, dict.fromkeys(NETS, 20.0)), tmp_path).claims()
    pairs = [(claim.a.length, claim.a.steps, claim.b.length, claim.b.steps) for claim in found]
    equal = [(100, 5, 100, 5), (80, 5, 100, 5), (100, 15, 100, 15), (80, 15, 100, 15)]
    assert pairs == [*equal, (50, 5, 100, 5), (100, 5, 100, 15)]
    assert {claim.a.kind for claim in found} == {DREAM.kind}
    assert {claim.b.kind for claim in found} == {PLAIN.kind}
    for claim in found:
        assert in_words(claim.found[LPIPS_ALEX.key], LPIPS_ALEX).endswith("confirmed")
        assert "not" not in in_words(claim.found[LPIPS_ALEX.key], LPIPS_ALEX)
        assert in_words(claim.found[CONSISTENCY.key], CONSISTENCY).endswith("open")


def test_what_is_clearly_worse_is_not_confirmed_whichever_way_is_better():
    worse = paired_over_seeds([[0.3, 0.31, 0.32]] * 2, [[0.2, 0.21, 0.22]] * 2, lower_is_better=True)
    assert in_words(worse, LPIPS_ALEX) == "+0.1000 [+0.1000, +0.1000], not confirmed"
    better = paired_over_seeds([[25.0, 26.0]], [[24.0, 25.0]])
    assert in_words(better, PSNR_Y) == "+1.00 [+1.00, +1.00], confirmed"
    assert in_words(None, PSNR_Y) == "-"


def test_pairing_takes_away_what_crops_have_in_common():
    """The crops differ by far more than the nets: unpaired, nothing would show."""
    a, b = values(0.24, spread=0.02), values(0.25, spread=0.02)
    found = paired_over_seeds(list(a.values()), list(b.values()), lower_is_better=True)
    assert found.is_clear
    assert found.mean < 0
    assert found.better > CROPS / 2


def test_the_interval_over_seeds_and_crops_is_wider_where_seeds_differ():
    alike = RNG.normal(1, 1, (2, CROPS))
    apart = alike + np.array([[-1.0], [1.0]])
    widths = [high - low for low, high in (crossed_interval(table) for table in (alike, apart))]
    assert widths[1] > 2 * widths[0]
    one_seed = crossed_interval(alike[:1])
    assert one_seed == pytest.approx(interval(alike[0]), abs=0.02)
    assert crossed_interval(alike[:, :1]) == (None, None)


def test_only_common_seeds_are_compared():
    net = StudiedNet("resshift-plain", 100, 5)
    other = StudiedNet("resshift-p1", 100, 5)
    tables = {LPIPS_ALEX.key: {net: {0: [1.0, 1.0], 1: [9.0, 9.0]}, other: {0: [0.5, 0.5], 7: [0.0, 0.0]}}}
    found = Figures(tables, {LPIPS_ALEX.key: {}}).difference(LPIPS_ALEX, other, net)
    assert found is not None
    assert found.mean == -0.5
