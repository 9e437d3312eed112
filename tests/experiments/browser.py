"""A browser that a test drives: keys as a person presses them, sizes, colours, pictures."""

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import urllib.request
from pathlib import Path

from tornado.websocket import websocket_connect

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell")
_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--hide-scrollbars", "--remote-debugging-port=0"),
)
_KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " ")}


def browser() -> str | None:
    """The path of one that is installed."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class Tab:
    """One page, by the Chrome DevTools protocol."""

    def __init__(self, place: Path):
        self._place, self._numbers = place, itertools.count(1)
        self.complaints: list[str] = []

    async def __aenter__(self):
        profile = self._place / "profile"
        self._process = subprocess.Popen(
            [browser(), *_OPTIONS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port = profile / "DevToolsActivePort"
        while not port.exists() or "/" not in port.read_text():
            assert self._process.poll() is None, "the browser ended"
            await asyncio.sleep(0.05)
        address = f"http://127.0.0.1:{port.read_text().split()[0]}/json"
        while not (
            pages := [p for p in json.load(urllib.request.urlopen(address)) if p["type"] == "page"]
        ):
            await asyncio.sleep(0.05)
        self._socket = await websocket_connect(
            pages[0]["webSocketDebuggerUrl"], max_message_size=2**26
        )
        for domain in ("Page", "Runtime", "Log"):
            await self.send(f"{domain}.enable")
        return self

    async def __aexit__(self, *error):
        self._socket.close()
        self._process.terminate()
        self._process.wait(20)

    async def send(self, method, **params):
        """Sends a command and returns its result; what the page complains of meanwhile is kept."""
        number = next(self._numbers)
        await self._socket.write_message(
            json.dumps({"id": number, "method": method, "params": params})
        )
        while True:
            message = json.loads(await asyncio.wait_for(self._socket.read_message(), 60))
            if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.complaints.append(json.dumps(message["params"]))
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]

    async def show(self, url, width, *, dark=False):
        """Opens a page at a width."""
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await self.send("Emulation.setEmulatedMedia", features=scheme)
        await self.send("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def ask(self, expression):
        """Returns the value of a JavaScript expression."""
        found = await self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"].get("value")

    async def until(self, expression, seconds=60):
        """Waits until an expression is true."""
        async with asyncio.timeout(seconds):
            while not await self.ask(expression):
                await asyncio.sleep(0.05)

    async def type(self, text):
        """Types a text."""
        await self.send("Input.insertText", text=text)

    async def press(self, key, *, control=False):
        """Presses a key."""
        code, text = _KEYS[key]
        event = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        event |= {"modifiers": 2} if control else {"text": text}
        kind = "rawKeyDown" if control or not text else "keyDown"
        await self.send("Input.dispatchKeyEvent", type=kind, **event)
        await self.send("Input.dispatchKeyEvent", type="keyUp", **event)

    async def picture(self, path):
        """Keeps what is seen of the whole page."""
        found = await self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))
