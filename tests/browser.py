"""Headless Chromium through chromedriver's HTTP interface: what a page does when it is opened."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
FLAGS += ["--disable-dev-shm-usage"]
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER), reason="needs chromium and chromedriver"
)
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Browser:
    """One session; every method is a command of WebDriver or of Chromium's own protocol."""

    def __init__(self, driver: str, profile: Path) -> None:
        self.url = driver
        options = {
            "binary": CHROMIUM,
            "args": [*FLAGS, f"--user-data-dir={profile}"],
            "perfLoggingPrefs": {"enableNetwork": True},
        }
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        answer = self._send("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.url = f"{driver}/session/{answer['sessionId']}"

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        content = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, content, method=method)
        with _OPENER.open(request, timeout=60) as response:
            return json.load(response)["value"]

    def open(self, page: Path, width: int, dark: bool) -> None:
        """Open a file in a window of so many CSS pixels, in one of the two colour schemes."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 700}
        self._chromium("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._chromium("Emulation.setEmulatedMedia", {"features": [scheme]})
        self._send("POST", "/url", {"url": page.resolve().as_uri()})

    def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        script = {"script": f"return {expression}", "args": []}
        return self._send("POST", "/execute/sync", script)

    def console(self) -> list[dict[str, Any]]:
        """Return what the page wrote to the console since the last call: errors, refusals."""
        return self._send("POST", "/se/log", {"type": "browser"})

    def requests(self) -> list[str]:
        """Return the addresses that the open page asked for since the last call."""
        page = self.value("location.href")
        entries = self._send("POST", "/se/log", {"type": "performance"})
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [each["request"]["url"] for each in sent if each["documentURL"] == page]

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page, not only of the window."""
        options = {"captureBeyondViewport": True, "format": "png"}
        height = self.value("document.documentElement.scrollHeight")
        width = self.value("document.documentElement.clientWidth")
        options["clip"] = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        picture = self._chromium("Page.captureScreenshot", options)
        path.write_bytes(base64.b64decode(picture["data"]))

    def _chromium(self, command: str, parameters: dict[str, Any]) -> Any:
        body = {"cmd": command, "params": parameters}
        return self._send("POST", "/goog/cdp/execute", body)

    def close(self) -> None:
        """End the session and its browser."""
        self._send("DELETE", "")


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start chromedriver and a browser with a new, empty profile in ``folder``, and end both."""
    assert CHROMEDRIVER is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [CHROMEDRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(300):
            try:
                with _OPENER.open(f"{address}/status", timeout=5) as response:
                    if json.load(response)["value"]["ready"]:
                        break
            except OSError:
                time.sleep(0.05)
        session = Browser(address, folder / "profile")
        try:
            yield session
        finally:
            session.close()
    finally:
        process.terminate()
        process.wait(30)


def flaws(page: Path, folder: Path) -> list[str]:
    """Open a page on a desktop and on a phone, light and dark, and return what is wrong with it.

    That is: whatever it fetches or writes to the console, a page wider than the window, words that
    stick out of a picture or lie on others, a table most of which its first column hides, a colour
    scheme without effect.
    """
    found, papers = [], []
    with browser(folder) as session:
        for width, dark in ((1280, False), (1280, True), (390, False), (390, True)):
            session.open(page, width, dark)
            session.value("document.querySelectorAll('details').forEach(d => d.open = true)")
            found += [url for url in session.requests() if url != page.resolve().as_uri()]
            found += [entry["message"] for entry in session.console()]
            found += session.value(_CUT_OFF)
            if session.value("document.documentElement.scrollWidth") > width:
                found.append(f"wider than {width} pixels")
            papers.append(session.value("getComputedStyle(document.body).backgroundColor"))
    if len(set(papers)) != 2:
        found.append(f"the paper is {papers}")
    return found


_CUT_OFF = """(() => {
  const found = [];
  for (const picture of document.querySelectorAll('svg[role=img]')) {
    const frame = picture.getBoundingClientRect();
    if (!frame.width) continue;
    const boxes = [...picture.querySelectorAll('text:not(.note)')]
      .map(text => [text.textContent, text.getBoundingClientRect()]);
    boxes.forEach(([words, a], i) => {
      if (a.left < frame.left - 1 || a.right > frame.right + 1 || a.top < frame.top - 1
          || a.bottom > frame.bottom + 1) found.push(words + ' sticks out');
      boxes.slice(i + 1).forEach(([others, b]) => {
        if (words && others && a.left < b.right && b.left < a.right && a.top < b.bottom - 1
            && b.top < a.bottom - 1) found.push(words + ' on ' + others);
      });
    });
  }
  for (const box of document.querySelectorAll('.scroll')) {
    const fixed = box.querySelector('th').getBoundingClientRect().width;
    if (box.scrollWidth > box.clientWidth && fixed > box.clientWidth / 2)
      found.push(box.ariaLabel + ' scrolls behind its first column');
  }
  return found;
})()"""
