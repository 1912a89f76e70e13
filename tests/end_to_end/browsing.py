"""A page of gradio's asked over HTTP as a browser asks it, by persons who each have a session of their own."""

import json
import threading
import urllib.request
import uuid


class RefusedError(Exception):
    """The page answered with a message."""


class Asked:
    """Something that a page was asked for, followed in a thread until it has ended."""

    def __init__(self, lines):
        self.outputs, self.failure = [], None
        self._thread = threading.Thread(target=self._follow, args=(lines,))
        self._thread.start()

    def _follow(self, lines):
        with lines:
            event = ""
            for line in lines:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                event = value if name == "event" else event
                if name == "data" and event in ("generating", "complete", "error"):
                    if event == "error":
                        self.failure = str(json.loads(value))
                    else:
                        self.outputs.append(json.loads(value))
                    if event != "generating":
                        return

    def done(self):
        return not self._thread.is_alive()

    def result(self, timeout=60):
        """The last of what it gave."""
        self._thread.join(timeout)
        assert self.done(), "it does not end"
        if self.failure is not None:
            raise RefusedError(self.failure)
        return self.outputs[-1]


class Person:
    """Who has the page at a port open."""

    def __init__(self, port):
        self.api, self.session = f"http://127.0.0.1:{port}/gradio_api", uuid.uuid4().hex

    def ask(self, name, *values):
        """Asks for something, and goes on."""
        return Asked(urllib.request.urlopen(f"{self.api}/call/{name}/{self._called(name, values)}"))

    def get(self, name, *values):
        """Asks for something, and waits for it."""
        return self.ask(name, *values).result()

    def press(self, name):
        """Presses what waits in no queue."""
        with self._sent(f"run/{name}", []):
            pass

    def leave_in_the_middle(self, name, *values):
        """Asks for something, and goes away once a part of it has come."""
        with urllib.request.urlopen(f"{self.api}/call/{name}/{self._called(name, values)}") as lines:
            assert any(line.startswith(b"event: generating") for line in lines)

    def place_in_queue(self, name, *values):
        """Asks for something, and goes away once it is told its place, from 0, and how long the queue is."""
        self._called(name, values)
        with urllib.request.urlopen(f"{self.api}/queue/data?session_hash={self.session}") as lines:
            for line in lines:
                message = json.loads(line.decode().removeprefix("data: ")) if line.strip() else {}
                if message.get("msg") == "estimation":
                    return message["rank"], message["queue_size"]
        raise AssertionError("no place was told")

    def _called(self, name, values):
        """The number of what is asked for."""
        with self._sent(f"call/{name}", values) as answer:
            return json.load(answer)["event_id"]

    def _sent(self, path, values):
        body = json.dumps({"data": values, "session_hash": self.session}).encode()
        request = urllib.request.Request(f"{self.api}/{path}", body, {"content-type": "application/json"})
        return urllib.request.urlopen(request)
