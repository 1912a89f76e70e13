"""In the place of the Hugging Face Hub: no test reaches it."""

import http.server
import shutil
from pathlib import Path

import huggingface_hub
import pytest

from rin.cli import main


class StandInForTheHub:
    """In the place of huggingface_hub.HfApi: keeps what is uploaded in folders, and tells how it was asked."""

    folder: Path
    asked: list
    private: dict

    def __init__(self, token=None):
        self.token = token

    def whoami(self):
        self.asked.append("whoami")

    def create_repo(self, repo_id, *, private, exist_ok):
        assert exist_ok
        self.asked.append("create_repo")
        self.private.setdefault(repo_id, bool(private))
        return f"hub/{repo_id}"

    def repo_info(self, repo_id):
        return huggingface_hub.hf_api.ModelInfo(id=repo_id, private=self.private[repo_id])

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        assert commit_message
        self.asked.append("upload_folder")
        shutil.copytree(folder_path, self.folder / repo_id, dirs_exist_ok=True)

    @classmethod
    def snapshot_download(cls, repo_id, allow_patterns):
        assert "model.safetensors" in allow_patterns
        return str(cls.folder / repo_id)


class Refusing(http.server.BaseHTTPRequestHandler):
    """Says 401 to everything."""

    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(401)
        self.send_header("content-length", "0")
        self.end_headers()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


def push(*arguments):
    """`rin push` in this process; its status."""
    with pytest.raises(SystemExit) as left:
        main(["push", *map(str, arguments)])
    return left.value.code


def card(folder):
    return (folder / "README.md").read_text(encoding="utf-8")
