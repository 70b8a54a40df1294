"""Lays out a cache of huggingface_hub by hand, and plays a hub that serves one repository."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def lay_out(cache: Path, source: Path, repo="Org/Name", commit=COMMIT, refs=("main",)) -> Path:
    """Put a folder's files into a cache as huggingface_hub would; return the snapshot."""
    root = cache / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (root / "blobs").mkdir(exist_ok=True)
    for file in source.iterdir():
        blob = root / "blobs" / f"{commit[:8]}-{file.name}"
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    for ref in refs:
        path = root / "refs" / ref
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commit)
    return snapshot


@contextmanager
def serving(files: dict[str, bytes], repo="Org/Name", commit=COMMIT):
    """Serve a repository as the hub does; yields its address and the paths asked for."""
    asked = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(path := self.path.partition("?")[0])
            api, resolve = f"/api/models/{repo}", f"/{repo}/resolve/"
            if path in (api, f"{api}/revision/main"):
                self.answer(json.dumps({
                    "id": repo, "_id": "0", "sha": commit, "private": False, "downloads": 0,
                    "likes": 0, "tags": [],
                    "siblings": [{"rfilename": n} for n in files]}).encode())
            elif path.startswith(f"{api}/tree/"):
                self.answer(json.dumps([{"type": "file", "path": n, "size": len(data),
                                         "oid": f"{i:040x}"}
                                        for i, (n, data) in enumerate(files.items())]).encode())
            elif path.startswith(resolve) and path.split("/", 5)[-1] in files:
                name = path.split("/", 5)[-1]
                self.answer(files[name], ETag=f'"{list(files).index(name):040x}"')
            else:
                self.answer(b"", 404, **{"X-Error-Code": "RepoNotFound"})

        do_HEAD = do_GET

        def answer(self, data, status=200, **headers):
            self.send_response(status)
            for key, value in {"X-Repo-Commit": commit, "Content-Length": str(len(data)),
                               **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
