"""A process that has imported what takes long, and forks into a process of its own for every command.

    python -m tests.forking SOCKET MODULES ...

Importing PyTorch takes a processor 2 to 5 seconds, and the commands of the tests, on toys, a fraction of one. A fork
has its own memory, files, signals and end like any other process; only its imports came before. Requests come as JSON
with the files for standard output and error, and are answered with the process's number, and with its status when it
has ended.
"""

import atexit
import contextlib
import importlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[1]
OTHERS = ("sklearn.datasets", "torch.utils.tensorboard", "torch._dynamo", "torch.distributed.fsdp", "av", "datasets")
"""What `rin` imports of others, all in all."""


class Process:
    """A fork that was asked for, with what `subprocess.Popen` has of it that the tests need."""

    def __init__(self, answers, args, out, err):
        self._answers, self.args, self._files = answers, args, (out, err)
        self.pid, self.returncode = self._number(), None

    def _number(self):
        """The next line of the answers, and not a byte more."""
        line = b""
        while not line.endswith(b"\n"):
            byte = self._answers.recv(1)
            assert byte, "the process that forks has ended"
            line += byte
        return int(line)

    def wait(self, timeout=None):
        """Its status; raises TimeoutExpired if it does not end in time."""
        if self.returncode is None:
            self._answers.settimeout(timeout)
            try:
                self.returncode = self._number()
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout) from None
            self._answers.close()
        return self.returncode

    def poll(self):
        """Its status, or None while it runs."""
        try:
            return self.wait(timeout=0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number):
        """Sends it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        """Ends it at once."""
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        """Asks it to end."""
        self.send_signal(signal.SIGTERM)

    def communicate(self, timeout=None):
        """Waits for its end; what it wrote to standard output and error."""
        self.wait(timeout)
        written = []
        for file in self._files:
            file.seek(0)
            written.append(file.read().decode())
            file.close()
        return tuple(written)


class Forking:
    """The process that forks, started when it is first needed; it ends with the one that started it.

    Args:
        modules: what it imports.
    """

    def __init__(self, modules):
        self._modules, self._socket = modules, None

    def start(self, module, arguments, *, cwd, environment, largest_file=None):
        """A fork that runs `main(arguments)` of a module."""
        if self._socket is None:
            self._begin()
        answers = socket.socket(socket.AF_UNIX)
        answers.connect(self._socket)
        request = {"module": module, "arguments": arguments, "cwd": str(cwd), "environment": environment}
        out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - closed with what they hold
        text = json.dumps(request | {"largest_file": largest_file}).encode() + b"\n"
        socket.send_fds(answers, [text], [out.fileno(), err.fileno()])
        return Process(answers, [module, *arguments], out, err)

    def _begin(self):
        path = os.path.join(tempfile.mkdtemp(), "forking")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, path, *self._modules], cwd=ROOT, env=environment, stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        atexit.register(self._end)
        while not os.path.exists(path):
            assert self._process.poll() is None, "the process that forks did not start"
            time.sleep(0.02)
        self._socket = path

    def _end(self):
        self._process.stdin.close()
        self._process.wait()


def serve(path, modules):
    """Forks for every request; returns the request in each fork, and never in this process."""
    for module in modules:
        importlib.import_module(module)
    server = socket.socket(socket.AF_UNIX)
    server.bind(path + ".new")
    server.listen(64)
    os.rename(path + ".new", path)
    signal.signal(signal.SIGCHLD, wait_for_the_dead)
    while True:
        ready, _, _ = select.select([server, sys.stdin], [], [])
        if sys.stdin in ready:  # the tests have ended
            os.unlink(path)
            os.rmdir(os.path.dirname(path))
            os._exit(0)
        answers, _ = server.accept()
        text, files, _, _ = socket.recv_fds(answers, 1 << 20, 2)
        if os.fork() == 0:
            server.close()
            return answers, json.loads(text), files
        for file in files:
            os.close(file)
        answers.close()


def wait_for_the_dead(*_):
    """Lets go of those that waited for forks."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def take_over(answers, request, files):
    """Makes a fork of this process what was asked for, and leaves the one between to wait for its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    process = os.fork()
    if process:
        answers.sendall(f"{process}\n".encode())
        _, status = os.waitpid(process, 0)
        answers.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    answers.close()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in enumerate(files, start=1):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if request["largest_file"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest_file"],) * 2)


def end(status):
    """Ends a fork as an interpreter ends, but for taking every imported module apart, which takes a second."""
    threading._shutdown()  # waits for threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    answers, request, files = serve(sys.argv[1], sys.argv[2:])
    take_over(answers, request, files)
    sys.argv = [request["module"], *request["arguments"]]
    try:
        importlib.import_module(request["module"]).main(request["arguments"])
        status = 0
    except SystemExit as left:
        status = left.code
    except BaseException:
        traceback.print_exc()
        status = 1
    end(status)
