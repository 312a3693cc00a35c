"""A headless Chromium, driven over its DevTools protocol: https://chromedevtools.github.io/devtools-protocol.

It needs Debian's ``chromium`` and aiohttp, which the console has anyway.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WAIT_S: Final = 60.0  # a browser is large, and the machine may be busy
GONE: Final = (  # how Chromium says that a script's page went away under it
    "Inspected target navigated or closed",
    "Execution context was destroyed.",
    "Cannot find default execution context",
)


class NavigatedError(Exception):
    """The page went away before its script had answered."""


class Tab:
    """A page in the browser. ``told``: what it said on its console, and what went wrong in it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.told: list[str] = []

    async def listen(self) -> None:
        """Take in what the browser says."""
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
            elif said["method"] in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
                self.told.append(json.dumps(said["params"]))

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Have the browser do something; return what it answers."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        said = await asyncio.wait_for(answer, WAIT_S)
        if said.get("error", {}).get("message") in GONE:
            raise NavigatedError(method)
        assert "error" not in said, said
        result: dict[str, Any] = said["result"]
        return result

    async def evaluate(self, script: str) -> Any:
        """Return what a script in the page returns."""
        result = await self.command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def wait_for(self, script: str) -> None:
        """Return when a script returns something true: in this page, or in one that comes in its place."""
        async with asyncio.timeout(WAIT_S):
            while True:
                with suppress(NavigatedError):
                    if await self.evaluate(script):
                        return
                await asyncio.sleep(0.02)  # it is another process that it waits for

    async def open(self, address: str) -> None:
        """Go to an address; return when it is loaded."""
        await self.command("Page.navigate", url=address)
        await self.wait_for(f"location.href.startsWith({json.dumps(address)}) && document.readyState === 'complete'")

    async def size(self, width: int, height: int, *, dark: bool = False, scale: float = 1) -> None:
        """Be so large, and light or dark."""
        await self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.command("Emulation.setEmulatedMedia", features=[scheme])

    async def press(self, key: str) -> None:
        """Press a key: a character, Tab or Enter."""
        text = {"Enter": "\r", "Tab": ""}.get(key, key)
        code = {"Enter": 13, "Tab": 9}.get(key, 0)
        for kind in ("keyDown", "keyUp"):
            await self.command("Input.dispatchKeyEvent", type=kind, key=key, text=text, windowsVirtualKeyCode=code)

    async def screenshot(self, path: Path) -> None:
        """Write what it shows into a file."""
        path.write_bytes(base64.b64decode((await self.command("Page.captureScreenshot", format="png"))["data"]))


@asynccontextmanager
async def browser() -> AsyncIterator[Tab]:
    """Start a Chromium, with one tab, for as long as within."""
    assert CHROMIUM is not None, "needs Chromium: apt-get install chromium"
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                CHROMIUM,
                "--headless=new",
                "--no-sandbox",  # root has none; it shows our own pages only
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--no-first-run",
                "--hide-scrollbars",
                "--remote-debugging-port=0",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            port = await _port(Path(profile), process)
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                    page = next(each for each in await answer.json() if each["type"] == "page")
                async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    tab = Tab(socket)
                    listening = asyncio.create_task(tab.listen())
                    for domain in ("Page", "Runtime", "Log"):
                        await tab.command(f"{domain}.enable")
                    try:
                        yield tab
                    finally:
                        listening.cancel()
                        with suppress(asyncio.CancelledError):
                            await listening
        finally:
            process.terminate()
            process.wait()


async def _port(profile: Path, process: subprocess.Popen[bytes]) -> int:
    """Where the browser listens; it says so in a file."""
    async with asyncio.timeout(WAIT_S):
        while process.poll() is None:
            with suppress(FileNotFoundError, IndexError, ValueError):
                return int((profile / "DevToolsActivePort").read_text().splitlines()[0])
            await asyncio.sleep(0.02)
    raise AssertionError("Chromium ended before it listened")
