"""Pages without a browser: what a page asks for at each tick over HTTP, and how many bytes it is sent.

`python -m tests.bench.pages URL FUNCTION PAGES SECONDS` keeps that many pages open for so long.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
import uuid
from typing import Any
from urllib.parse import urlsplit

TICK_S = 2.0


class Page:
    """One open page: a session that clicks the hidden button Look."""

    def __init__(self, url: str, function: int) -> None:
        """`url` is the server's address with the prefix of its API, `function` the number of the look's handler."""
        self._url, self._function, self._session = urlsplit(url), function, uuid.uuid4().hex[:10]

    def look(self, run: str | None = None, span: str = "15 min") -> tuple[int, list[Any]]:
        """Looks once: the bytes of the answer's body, and what each component was sent."""
        asked = {"data": [run, span, False, True, None], "fn_index": self._function, "session_hash": self._session}
        connection = http.client.HTTPConnection(self._url.hostname or "", self._url.port, timeout=60)
        headers = {"Content-Type": "application/json"}
        connection.request("POST", f"{self._url.path}queue/join", json.dumps(asked), headers)
        sent = len(connection.getresponse().read())
        connection.request("GET", f"{self._url.path}queue/data?session_hash={self._session}")
        for line in connection.getresponse():
            sent += len(line)
            message = json.loads(line[6:]) if line.startswith(b"data: ") else {}
            if message.get("msg") == "process_completed":
                connection.close()
                if not message["success"]:
                    raise RuntimeError(f"the look failed: {message['output']}")
                return sent, message["output"]["data"]
        raise RuntimeError("the server ended the answer before it was complete")


def look_function(demo: Any) -> int:
    """The number of the handler behind the hidden button Look."""
    config = demo.get_config_file()
    look = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "watchdog-look")
    return next(
        int(d.get("id", number))
        for number, d in enumerate(config["dependencies"])
        if any(target == look for target, _ in d["targets"])
    )


def keep_open(url: str, function: int, pages: int, seconds: float) -> None:
    """Keeps pages open, each looking every two seconds."""
    end = time.monotonic() + seconds

    def stay(number: int) -> None:
        page = Page(url, function)
        time.sleep(TICK_S * number / pages)
        while time.monotonic() < end:
            began = time.monotonic()
            page.look()
            time.sleep(max(0.0, TICK_S - (time.monotonic() - began)))

    threads = [threading.Thread(target=stay, args=(number,)) for number in range(pages)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    keep_open(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
