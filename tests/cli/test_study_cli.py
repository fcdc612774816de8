import pytest

from dreamsr.cli import main


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--systems", "sr3-x0,sr4"], "--systems has 'sr4', but it must be among sr3-x0"),
        (["--powers", "plain,much"], "--powers has 'much'"),
        (["--powers", "-1"], "plain, or numbers from 0 up"),
        (["--only", "sr3-x0-p1"], "--only has 'sr3-x0-p1'"),
        (["--steps", "1.5"], "--steps has '1.5'"),
        (["--seeds", "0"], "one or more"),
        (["--set", "rate_schedule=cosine"], "constant"),
    ],
)
def test_impossible_requests_are_told_before_any_work(tmp_path, capfd, options, words):
    (tmp_path / "photos").mkdir()
    arguments = ["--data", str(tmp_path / "photos"), "--val", str(tmp_path / "held"), "--out", str(tmp_path / "out")]
    assert main(["study", *arguments, *options]) == 2
    told = capfd.readouterr().err
    assert words in told.replace("\n", " ")
    assert not (tmp_path / "out" / "crops").exists()
