"""The server, asked over HTTP: who may, what comes back, one picture at a time, and nothing left behind."""

from __future__ import annotations

import dataclasses
import inspect
import io
import json
import socket
import stat
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from dreamsr.cli import main
from dreamsr.cli.upscale import DEFAULT_SCALE
from dreamsr.cli.upscale import upscale as upscale_command
from dreamsr.errors import DeviceError, OutputError, UsageError
from dreamsr.pictures.opening import limit_for
from dreamsr.serving.app import Site
from dreamsr.serving.choices import Choices, in_words_of_the_page, offers
from dreamsr.serving.queue import PictureQueue
from dreamsr.serving.server import running
from dreamsr.serving.uploads import safe_name
from dreamsr.upscaling.upscaler import Upscaler
from tests.serving.conftest import Patient, Serve, Visitor

PICTURES = Path(__file__).parents[1] / "pictures"


def png(width: int = 12, height: int = 8, **more: Any) -> bytes:
    """A picture of noise."""
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **more)
    return buffer.getvalue()


def half_a_jpeg() -> bytes:
    """Of which half is missing, but for its end."""
    buffer = io.BytesIO()
    with Image.open(PICTURES / "coffee.png") as image:
        image.convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()[: buffer.tell() // 2] + b"\xff\xd9"


# --- who may ask ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "127.0.0.1@evil", "", "[::1]"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_foreign_hosts_get_nothing(visitor: Visitor, host: str, method: str) -> None:
    answer, content = visitor.raw(method, f"/{visitor.token}/pictures", Host=host)
    assert answer.status == 403
    assert b"127.0.0.1 alone" in content


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "localhost:1", "LOCALHOST"])
def test_this_machine_may_have_any_port_as_seen_through_a_tunnel(visitor: Visitor, host: str) -> None:
    assert visitor.ask("GET", "pictures", Host=host) == (200, [])


def test_a_request_without_or_with_two_hosts_gets_nothing(visitor: Visitor) -> None:
    for hosts in ("", "Host: 127.0.0.1\r\nHost: evil.example\r\n"):
        with socket.create_connection(("127.0.0.1", visitor.port)) as connection:
            connection.sendall(f"GET /{visitor.token}/ HTTP/1.0\r\n{hosts}\r\n".encode())
            assert connection.recv(12) in (b"HTTP/1.1 403", b"HTTP/1.1 400")


@pytest.mark.parametrize("path", ["/", "/pictures", "/page.js", "/x/pictures", "/{}x/", "//{}/", "/%2e%2e/", "/é"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_without_the_token_there_is_nothing(visitor: Visitor, path: str, method: str) -> None:
    answer, content = visitor.raw(method, path.replace("é", "%C3%A9").format(visitor.token))
    assert answer.status == 403
    assert visitor.token.encode() not in content


def test_pages_of_other_servers_are_refused_even_with_the_token(visitor: Visitor) -> None:
    assert visitor.raw("GET", f"/{visitor.token}/pictures", Origin="https://evil.example")[0].status == 403
    assert visitor.raw("POST", f"/{visitor.token}/pictures", Origin="null")[0].status == 403
    assert visitor.ask("GET", "pictures", Origin=visitor.address.split("/" + visitor.token)[0])[0] == 200


def test_every_answer_forbids_what_is_foreign(visitor: Visitor) -> None:
    for path in (f"/{visitor.token}/", f"/{visitor.token}/pictures", f"/{visitor.token}/none", "/"):
        answer, _ = visitor.raw("GET", path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "http" not in policy
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_the_page_asks_nobody_else_for_anything(visitor: Visitor) -> None:
    for path in ("", "page.css", "page.js", "icon.svg"):
        answer, content = visitor.raw("GET", f"/{visitor.token}/{path}")
        assert answer.status == 200
        found = content.decode().replace("http://www.w3.org/2000/svg", "")  # a name, not an address
        assert "http:" not in found
        assert "https:" not in found
        assert "url(" not in found


def test_the_door_for_the_browser_opens_once(visitor: Visitor) -> None:
    path = visitor.door.split(str(visitor.port))[1]
    answer, _ = visitor.raw("GET", path)
    assert (answer.status, answer.headers["Location"]) == (303, f"/{visitor.token}/")
    assert visitor.raw("GET", path)[0].status == 403
    assert visitor.raw("GET", "/")[0].status == 403  # an empty secret opens nothing


def test_only_this_machine_is_listened_to(visitor: Visitor) -> None:
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for address in others:
        with pytest.raises(OSError), socket.create_connection((address, visitor.port), timeout=5):  # noqa: PT011
            pass
    assert visitor.address.startswith("http://127.0.0.1:")


# --- what comes back --------------------------------------------------------------------------------------------------


def same_by_command(tmp_path: Path, weights: Path, name: str, content: bytes, *options: str) -> tuple[str, bytes]:
    """Name and bytes of what `dreamsr upscale` makes of a picture."""
    folder = tmp_path / "command"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    machine = ["--device", "cpu", "--precision", "fp32"]
    assert main(["upscale", str(folder / name), "-w", str(weights), "-q", *machine, *options]) == 0
    (result,) = [path for path in folder.iterdir() if path.name != name]
    return result.name, result.read_bytes()


def photo(format: str) -> bytes:
    """A small photograph with a profile, EXIF and a text, as a file."""
    exif = Image.Exif()
    exif[0x0110] = "Camera"
    exif[0x0112] = 6  # to be turned
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    buffer = io.BytesIO()
    with Image.open(PICTURES / "coffee.png") as image:
        image.convert("RGB").crop((0, 0, 40, 30)).save(buffer, format, exif=exif, icc_profile=profile, dpi=(72, 72))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "format", "choices", "options"),
    [
        ("a.png", "PNG", {}, []),
        ("a b é.jpg", "JPEG", {"scale": 2.5, "fidelity": 0.5}, ["-s", "2.5", "--fidelity", "0.5"]),
        ("a.jpeg", "JPEG", {"scale": 2, "format": "webp"}, ["-s", "2", "--format", "webp"]),
        ("a.tif", "TIFF", {"scale": 2}, ["-s", "2"]),
    ],
)
def test_the_result_is_what_the_command_writes(
    visitor: Visitor,
    tiny_weights: Path,
    tmp_path: Path,
    name: str,
    format: str,
    choices: dict[str, Any],
    options: list[str],
) -> None:
    content = photo(format)
    status, entry = visitor.add(name, content, **choices)
    assert status == 201
    assert (entry["name"], entry["input_size"]) == (name, [30, 40])
    done = visitor.wait(entry["id"], "done", "failed")
    answer, result = visitor.download(entry["id"])
    expected_name, expected = same_by_command(tmp_path, tiny_weights, name, content, *options)
    assert done["result"] == {"name": expected_name, "bytes": len(expected)}
    assert result == expected
    assert answer.headers["Content-Disposition"].startswith("attachment; filename")
    with Image.open(io.BytesIO(result)) as image:
        assert list(image.size) == done["size"]
        assert image.info["icc_profile"]
        assert image.getexif()[0x0110] == "Camera"


def test_before_and_after_are_compared_on_a_page_that_may_ask_nothing(visitor: Visitor) -> None:
    _, entry = visitor.add("<i>.png", png(), scale=2)
    assert visitor.wait(entry["id"], "done")["compares"]
    answer, content = visitor.raw("GET", f"/{visitor.token}/pictures/{entry['id']}/compare")
    assert answer.status == 200
    assert b"<strong>_i_.png</strong>" in content
    assert str(visitor.folder).encode() not in content
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "connect" not in policy
    assert "'self'" not in policy.replace("frame-ancestors 'self'", "")


def test_a_result_without_a_page_to_compare_is_a_result(serve: Serve, patient: Patient, monkeypatch: Any) -> None:
    def broken(*_: Any) -> None:
        raise OutputError("no space")

    monkeypatch.setattr("dreamsr.upscaling.compare.write_bytes_atomically", broken)
    patient.go.set()
    with serve(patient) as visitor:
        id = visitor.add("a.png", png(), scale=2)[1]["id"]
        assert visitor.wait(id, "done")["notes"] == ["no space"]


def test_notes_are_told(visitor: Visitor) -> None:
    _, entry = visitor.add("a.png", png(), format="bmp", scale=2)
    assert visitor.wait(entry["id"], "done")["notes"] == []
    buffer = io.BytesIO()
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    Image.fromarray(pixels).save(buffer, "PNG")
    _, entry = visitor.add("deep.png", buffer.getvalue(), format="jpeg", scale=2)
    (note,) = visitor.wait(entry["id"], "done")["notes"]
    assert "8 bit" in note


@pytest.mark.parametrize(
    ("name", "content", "choices", "error"),
    [
        ("a.png", b"no picture", {}, "a.png is not a picture of a known format"),
        ("a.png", b"", {}, "a.png is empty"),
        ("a.gif", b"GIF89a" + bytes(20), {}, "a.gif seems to be a GIF"),
        ("a.png", png(5000, 1), {"scale": 16, "format": "webp"}, "choose “format” png or tiff"),
        ("a.jpg", half_a_jpeg(), {}, "“accept damaged” enlarges it as it is"),
        ("a.jpg", half_a_jpeg(), {"accept_damaged": True}, None),
    ],
)
def test_a_picture_that_cannot_be_enlarged_says_why_in_one_line(
    visitor: Visitor, name: str, content: bytes, choices: dict[str, Any], error: str | None
) -> None:
    _, entry = visitor.add(name, content, **choices)
    ended = visitor.wait(entry["id"], "done", "failed")
    if error is None:
        assert ended["state"] == "done"
        assert "damaged" in ended["notes"][0]
        return
    assert ended["state"] == "failed"
    assert error in ended["error"]
    assert ended["error"].isprintable()
    assert str(visitor.folder) not in ended["error"]
    assert visitor.download(entry["id"])[0].status == 404
    assert not (visitor.folder / entry["id"]).exists()  # what nobody needs is gone


@pytest.mark.parametrize(
    ("choices", "error"),
    [
        ({"scale": 17}, "“scale” is 17, but it must be above 1 and at most 16"),
        ({"scale": 1}, "“scale” is 1,"),
        ({"scale": None}, "scale: "),
        ({"scale": "4"}, "scale: "),
        ({"fidelity": 1.5}, "“fidelity” is 1.5"),
        ({"denoise": 0.5}, "“denoise” works with weights"),
        ({"denoise": -1}, "“denoise” is -1"),
        ({"format": "gif"}, "“format” is gif"),
        ({"weights": "user/repo"}, "“weights” is user/repo, but it must be one of"),
        ({"weights": "/etc/passwd"}, "“weights” is /etc/passwd"),
        ({"steps": 3}, "steps: "),
        ({"accept_damaged": "yes"}, "accept_damaged: "),
    ],
)
def test_choices_are_checked_as_the_command_checks_them(visitor: Visitor, choices: dict[str, Any], error: str) -> None:
    for status, told in (
        visitor.ask("GET", f"check?{visitor.query('a.png', **choices)}"),
        visitor.add("a.png", png(), **choices),
    ):
        assert status == 400
        assert error in told["error"]
        assert told["error"].isprintable()
    assert visitor.list() == []


@pytest.mark.parametrize("text", ["", "3", "[]", "{", '{"scale": NaN}', "[" * 100_000 + "]", '{"scale":2,"scale":3}'])
def test_hostile_choices_are_one_line(visitor: Visitor, text: str) -> None:
    answer, content = visitor.raw(
        "GET", f"/{visitor.token}/check?choices={text[:8000]}".replace('"', "%22").replace(" ", "")
    )
    assert answer.status == 400
    assert json.loads(content)["error"].isprintable()


def test_the_defaults_are_those_of_the_command() -> None:
    command = inspect.signature(upscale_command).parameters
    for field in dataclasses.fields(Choices):
        if field.name == "weights":
            continue
        told = command[field.name].default
        assert field.default == (DEFAULT_SCALE if field.name == "scale" else told or field.default), field.name
    assert offers(command["weights"].default)[0].name == command["weights"].default


def test_the_weights_offered_can_be_had_and_say_what_they_do() -> None:
    found = {offer.name: offer for offer in offers("clean-x4")}
    assert next(iter(found)) == "clean-x4"
    assert found["photo-x4"].denoises
    assert found["auto"].denoises
    assert not found["clean-x4"].denoises
    assert found["photo-x4"].fetch_bytes == 0
    assert offers("user/repo")[0].name == "user/repo"


# --- names and sizes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a.png", "a.png"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("/etc/cron.d/x", "x"),
        ("C:\\a.png", "a.png"),
        ("..", "picture"),
        ("", "picture"),
        ("a/", "picture"),
        (".hidden.png", "hidden.png"),
        ("a\0b\n.png", "a_b_.png"),
        ('a<>:"|?*.png', "a_______.png"),
        ("-", "-"),
        ("x" * 300 + ".png", "x" * 176 + ".png"),
        ("é" * 300 + ".jpeg", "é" * 87 + ".jpeg"),
        ("a." + "x" * 300, ("a." + "x" * 300)[:180]),
        ("[1]{stem}.png", "[1]{stem}.png"),
        ("\udcff.png", "?.png".replace("?", "_")),
    ],
)
def test_names_become_names_and_nothing_else(name: str, safe: str) -> None:
    assert safe_name(name) == safe
    assert safe_name(safe) == safe


@pytest.mark.parametrize("name", ["../../up.png", "..%2f..%2fup.png", "-", "[1]{stem}*.png", "a'b\".png", "<b>.png"])
def test_odd_names_stay_in_their_folder_and_are_enlarged(visitor: Visitor, name: str, tmp_path: Path) -> None:
    _, entry = visitor.add(name, png(), scale=2)
    done = visitor.wait(entry["id"], "done", "failed")
    assert done["error"] == ""
    assert {path.parent for path in visitor.folder.rglob("*") if path.is_file()} == {visitor.folder / entry["id"]}
    assert not list(tmp_path.rglob("*up.png"))


@pytest.mark.parametrize("id", ["..", "%2e%2e", "1%2f..", "../1", "2", "x", "1%00"])
def test_no_path_leads_elsewhere(visitor: Visitor, id: str) -> None:
    visitor.add("a.png", png(), scale=2)
    for end in ("/result", "/compare", "/a.png", ""):
        answer, content = visitor.raw("GET", f"/{visitor.token}/pictures/{id}{end}")
        assert answer.status in (404, 405), (id, end)
        assert b"root:" not in content


def test_too_many_pixels_are_refused_by_name(serve: Serve) -> None:
    with serve(max_pixels=95) as visitor:
        _, entry = visitor.add("a.png", png(12, 8))
        assert entry["state"] == "failed"
        assert entry["error"].startswith("a.png has 12x8 = 96 pixels, more than the 95 allowed")


def test_too_many_bytes_are_refused_before_and_while_they_arrive(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Site, "limit_bytes", 1000)
    with serve() as visitor:
        status, told = visitor.ask("GET", f"check?{visitor.query('a.png')}&bytes=1001")
        assert (status, told["error"]) == (400, "a.png is larger than the 1000 bytes a picture may have; shrink it.")
        assert visitor.add("a.png", bytes(1001))[0] == 400
        parts = iter([b"x" * 600, b"x" * 600])  # sent in chunks, of a size that is not announced
        assert visitor.ask("POST", f"pictures?{visitor.query('a.png')}", body=parts)[0] == 400
        assert visitor.list() == []
        assert not [path for path in visitor.folder.rglob("*") if path.is_file()]
    monkeypatch.undo()
    assert Site(PictureQueue(Path(), max_pixels=10, make_enlarger=lambda *_: None), []).limit_bytes == limit_for(10)  # type: ignore[arg-type, return-value]


def test_an_upload_that_breaks_off_leaves_nothing(visitor: Visitor) -> None:
    with socket.create_connection(("127.0.0.1", visitor.port)) as connection:
        path = f"/{visitor.token}/pictures?{visitor.query('a.png')}"
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nabc".encode())
        while not list(visitor.folder.rglob("a.png")):
            threading.Event().wait(0.01)
    while list(visitor.folder.iterdir()):
        threading.Event().wait(0.01)
    assert visitor.list() == []


def test_a_full_disk_is_told_in_one_line(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    status, told = visitor.add("a.png", png())
    monkeypatch.undo()
    assert status == 400
    assert told["error"].startswith("a.png cannot be kept: No space left on device; remove pictures")


# --- one at a time ----------------------------------------------------------------------------------------------------


def test_pictures_are_enlarged_one_at_a_time_in_the_order_they_came(serve: Serve, patient: Patient) -> None:
    with serve(patient) as visitor:
        ids = [visitor.add(f"{n}.png", png(n, 8), scale=2)[1]["id"] for n in (9, 10, 11)]
        assert visitor.wait(ids[0], "working")["fraction"] in (0, 0.25)
        assert [entry["state"] for entry in visitor.list()] == ["working", "waiting", "waiting"]
        patient.go.set()
        for id in ids:
            visitor.wait(id, "done")
        assert patient.names == [(9, 8), (10, 8), (11, 8)]
        assert [entry["id"] for entry in visitor.list()] == ids


def test_progress_is_told(serve: Serve, patient: Patient) -> None:
    with serve(patient) as visitor:
        _, entry = visitor.add("a.png", png(), scale=2)
        while visitor.wait(entry["id"], "working")["fraction"] != 0.25:
            pass
        assert visitor.wait(entry["id"], "working")["seconds"] >= 0
        patient.go.set()
        done = visitor.wait(entry["id"], "done")
        assert (done["fraction"], done["weights"]) == (1, "patient")


def test_work_and_waiting_can_be_cancelled(serve: Serve, patient: Patient) -> None:
    with serve(patient) as visitor:
        one, two, three = (visitor.add(f"{n}.png", png(n, 8), scale=2)[1]["id"] for n in (9, 10, 11))
        visitor.wait(one, "working")
        for id in (two, one):
            assert visitor.ask("POST", f"pictures/{id}/cancel") == (200, {})
            visitor.wait(id, "cancelled")
        patient.go.set()
        visitor.wait(three, "done")  # the server goes on
        assert patient.names == [(9, 8), (11, 8)]
        assert visitor.download(one)[0].status == 404
        assert visitor.ask("POST", f"pictures/{one}/cancel")[0] == 200  # what has ended stays as it is
        assert visitor.wait(one, "cancelled")["error"] == ""


def test_what_is_finished_can_be_removed_with_its_files(serve: Serve, patient: Patient) -> None:
    with serve(patient) as visitor:
        id = visitor.add("a.png", png(), scale=2)[1]["id"]
        visitor.wait(id, "working")
        status, told = visitor.ask("DELETE", f"pictures/{id}")
        assert (status, told["error"]) == (400, "a.png is not finished; cancel it first")
        patient.go.set()
        visitor.wait(id, "done")
        assert visitor.ask("DELETE", f"pictures/{id}") == (200, {})
        assert visitor.list() == []
        assert list(visitor.folder.iterdir()) == []
        assert visitor.ask("DELETE", f"pictures/{id}")[0] == 404


def test_a_list_that_is_full_says_so(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamsr.serving.queue.MOST_PICTURES", 1)
    assert visitor.add("a.png", b"x")[0] == 201
    status, told = visitor.add("b.png", b"x")
    assert (status, told["error"]) == (400, "the list holds 1 pictures; remove some of them first")


def test_weights_are_loaded_once_and_only_the_last_are_kept(serve: Serve, tiny_upscaler: Upscaler) -> None:
    made: list[Choices] = []

    def make(choices: Choices, *_: Any) -> Upscaler:
        made.append(choices)
        return tiny_upscaler

    with serve(make) as visitor:
        for weights in (visitor.weights, visitor.weights, "clean-x4", visitor.weights):
            visitor.wait(visitor.add("a.png", png(), scale=2, weights=weights)[1]["id"], "done")
    assert [choices.weights for choices in made] == [visitor.weights, "clean-x4", visitor.weights]


def test_trouble_with_weights_is_told_and_the_next_picture_has_its_chance(serve: Serve, patient: Patient) -> None:
    patient.go.set()
    trouble: list[BaseException] = [DeviceError("no `device` here; choose another"), RuntimeError("odd")]

    def make(_: Choices, on_notice: Any, on_download: Any) -> Patient:
        on_notice("fetching")
        on_download(1_000_000, 9_000_000)
        if trouble:
            raise trouble.pop(0)
        return patient

    with serve(make) as visitor:
        ids = [visitor.add("a.png", png(), scale=2)[1]["id"] for _ in range(3)]
        assert visitor.wait(ids[0], "failed")["error"] == "no “device” here; choose another"
        assert "internal error (RuntimeError: odd)" in visitor.wait(ids[1], "failed")["error"]
        assert visitor.wait(ids[2], "done")["doing"] == ""


def test_a_bug_is_one_line_and_the_server_goes_on(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PictureQueue, "entries", lambda _: 1 / 0)
    status, told = visitor.ask("GET", "pictures")
    assert status == 500
    assert told["error"].startswith("internal error (ZeroDivisionError")
    monkeypatch.undo()
    assert visitor.ask("GET", "pictures") == (200, [])


# --- beginning and ending ---------------------------------------------------------------------------------------------


def test_the_folder_is_private_and_gone_at_the_end(serve: Serve) -> None:
    with serve() as visitor:
        visitor.wait(visitor.add("a.png", png(), scale=2)[1]["id"], "done")
        assert stat.S_IMODE(visitor.folder.stat().st_mode) == 0o700
        assert "dreamsr-serve-" in visitor.folder.name
    assert not visitor.folder.exists()
    with pytest.raises(OSError):  # noqa: PT011
        socket.create_connection(("127.0.0.1", visitor.port), timeout=5)


def test_a_port_that_is_taken_and_several_processes_are_refused(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(port: int) -> None:
        with running(port, "photo-x4", max_pixels=1, make_enlarger=lambda *_: Patient()):
            pass

    with pytest.raises(UsageError, match=f"`port` is {visitor.port}, which cannot be had"):
        begin(visitor.port)
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("MASTER_ADDR", "x"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="one process"):
        begin(0)


def test_messages_are_in_words_of_the_page() -> None:
    folder = Path("/tmp/dreamsr-serve-x")
    said = in_words_of_the_page("/tmp/dreamsr-serve-x/12/a.png is damaged; `accept_damaged` takes it", folder)
    assert said == "a.png is damaged; “accept damaged” takes it"
