"""A browser driven as a person uses it, for the tests of pages."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import time
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CHROMIUM = next((found for n in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(n))), "")
KEY_CODES = {"Tab": 9, "Enter": 13, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39,
             "ArrowDown": 40, "Escape": 27}  # fmt: skip


class Browser:
    """Chromium's debugging protocol over two pipes: JSON messages that end with a null byte."""

    def __init__(self, profile: Path) -> None:
        read_theirs, self.write_ours = os.pipe()
        self.read_ours, write_theirs = os.pipe()
        command = (
            f'exec "$0" --headless --no-sandbox --disable-gpu --remote-debugging-pipe --user-data-dir="$1" '
            f"--window-size=900,700 about:blank 3<&{read_theirs} 4>&{write_theirs}"
        )
        self.process = subprocess.Popen(
            ["/bin/bash", "-c", command, CHROMIUM, str(profile)],
            pass_fds=(read_theirs, write_theirs),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_theirs)
        os.close(write_theirs)
        self.number = 0
        self.buffer = b""
        self.session: str | None = None

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its answer; events in between are passed over."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.write_ours, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.buffer:
                part = os.read(self.read_ours, 1 << 20)
                assert part, "the browser went away"
                self.buffer += part
            first, self.buffer = self.buffer.split(b"\0", 1)
            answer: dict[str, Any] = json.loads(first)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return answer["result"].get("value")

    def open(self, address: str, *, wanted: str) -> None:
        """Load a page and wait until it is drawn; `wanted` is a selector of something that it holds."""
        target = self.call("Target.createTarget", url=address)["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        deadline = time.monotonic() + 60
        # A new target shows an empty page first, and that is complete, too; between the two there is none.
        ready = f"document.readyState === 'complete' && document.querySelector({wanted!r}) !== null"
        is_ready = False
        while not is_ready and time.monotonic() < deadline:
            time.sleep(0.1)
            with contextlib.suppress(AssertionError):
                is_ready = self.evaluate(ready)
        self.evaluate("Promise.all([...document.images].map((image) => image.decode()))")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def wait_for(self, expression: str, seconds: float = 60) -> None:
        """Until a JavaScript expression is true."""
        deadline = time.monotonic() + seconds
        while not self.evaluate(expression):
            assert time.monotonic() < deadline, f"never true: {expression}; {self.evaluate('document.body.innerText')}"
            time.sleep(0.05)

    def middle(self, selector: str) -> tuple[float, float]:
        """Where the middle of an element is in the window, into which it is scrolled."""
        found = f"document.querySelector({selector!r})"
        self.evaluate(f"{found}.scrollIntoView({{block: 'center'}})")
        middle = "(({x, y, width, height}) => [x + width / 2, y + height / 2])"
        x, y = self.evaluate(f"{middle}({found}.getBoundingClientRect())")
        return x, y

    def click(self, selector: str) -> None:
        """Press and release the mouse on an element."""
        place = self.middle(selector)
        self.mouse("mousePressed", *place)
        self.mouse("mouseReleased", *place)

    def drop(self, files: Sequence[Path], selector: str) -> None:
        """Drag files onto an element."""
        x, y = self.middle(selector)
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def screenshot(self) -> np.ndarray:
        """What is seen, [H,W,3]."""
        with Image.open(io.BytesIO(b64decode(self.call("Page.captureScreenshot")["data"]))) as image:
            return np.asarray(image.convert("RGB"))

    def mouse(self, kind: str, x: float, y: float) -> None:
        """Press, move or release the left button."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def press(self, key: str, times: int = 1, *, shift: bool = False) -> None:
        """Press and release a key, by its name or character."""
        code = KEY_CODES.get(key) or ord(key.upper())
        same = {"key": key, "windowsVirtualKeyCode": code, "nativeVirtualKeyCode": code, "modifiers": 8 * shift}
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        for _ in range(times):
            self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **same, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", **same)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.write_ours)
        os.close(self.read_ours)
