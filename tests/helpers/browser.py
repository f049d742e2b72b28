"""A headless Chromium spoken to by the DevTools protocol over a pipe: pages as a reader's browser shows them."""

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe",
]  # fmt: skip


class Page:
    """One page in a browser of its own: what it logs, what it asks the network for, and what its elements say."""

    def __init__(self, send, receive, patience):
        self._send, self._receive, self._patience = send, receive, patience
        self._number, self.events, self.session = 0, [], None

    def call(self, method, **parameters):
        """A command of the protocol and its result; events on the way are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        self._send(message)
        while True:
            found = self._receive(self._patience)
            if found.get("id") == self._number:
                assert "error" not in found, (method, found["error"])
                return found["result"]
            self.events.append(found)

    def open(self, address):
        """Load a page and wait until it is there."""
        self.call("Page.navigate", url=address)
        end = time.monotonic() + self._patience
        while self.run("document.readyState + location.href") != f"complete{address}":
            assert time.monotonic() < end, f"{address} does not load"
            time.sleep(0.1)

    def run(self, code):
        """The value of an expression of JavaScript; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True, userGesture=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def logged(self):
        """Errors and warnings of the console, and exceptions that nothing caught."""
        kinds = {"Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"}
        return [event["params"] for event in self.events if event.get("method") in kinds]

    def requests(self):
        """Addresses that were asked for."""
        sent = [event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [each["request"]["url"] for each in sent]

    def screenshot(self, path, width, height, *, dark=False):
        """A picture of the whole page at a width."""
        self.look(width, height, dark=dark)
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=False)
        Path(path).write_bytes(base64.b64decode(found["data"]))

    def look(self, width, height, *, dark=False):
        """The size of the window, and whether it is night."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def pdf(self):
        """The page as it prints."""
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"])

    def controls(self):
        """(role, name) of everything that can be operated, as assistive programs are told."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        roles = {"button", "slider", "textbox", "link", "combobox", "checkbox", "DisclosureTriangle"}
        shown = [node for node in nodes if not node.get("ignored") and node["role"]["value"] in roles]
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in shown]


@contextlib.contextmanager
def browser(folder, patience=120.0):
    """A Page whose browser ends with it.

    Args:
        folder: new, for the browser's own files.
        patience: seconds that an answer may take.
    """
    to_browser, from_browser = os.pipe(), os.pipe()

    def wire():  # the pipe's ends are file descriptors 3 and 4 of the browser
        os.dup2(to_browser[0], 13)
        os.dup2(from_browser[1], 14)
        os.dup2(13, 3)
        os.dup2(14, 4)

    process = subprocess.Popen(
        [PROGRAM, *_FLAGS, f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=wire,
        close_fds=False,
        start_new_session=True,
    )
    os.close(to_browser[0])
    os.close(from_browser[1])
    os.set_blocking(from_browser[0], False)
    rest = bytearray()

    def send(message):
        os.write(to_browser[1], json.dumps(message).encode() + b"\0")

    def receive(seconds):
        end = time.monotonic() + seconds
        while b"\0" not in rest:
            with contextlib.suppress(BlockingIOError):
                rest.extend(os.read(from_browser[0], 1 << 20))
                continue
            assert process.poll() is None, "the browser has ended"
            assert time.monotonic() < end, "the browser does not answer"
            time.sleep(0.01)
        message, _, left = bytes(rest).partition(b"\0")
        rest[:] = left
        return json.loads(message)

    try:
        page = Page(send, receive, patience)
        target = page.call("Target.createTarget", url="about:blank")["targetId"]
        page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            page.call(f"{domain}.enable")
        yield page
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(to_browser[1])
        os.close(from_browser[0])
