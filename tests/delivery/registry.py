"""A real registry on the loopback."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import httpx

from tests.delivery.engine import PATH, needs
from tests.support.network import NO_TLS
from tests.support.processes import Process, free_port
from tests.support.waiting import eventually

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"


class Registry:
    """Debian's docker-registry in a folder."""

    def __init__(self, folder: Path) -> None:
        needs("docker-registry", why="there is no registry", root=False)
        self.port = free_port()
        self.folder = folder
        lines = ["version: 0.1", f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}"]
        (folder / "config.yml").write_text("\n".join([*lines, f"http: {{addr: 127.0.0.1:{self.port}}}\n"]))
        command = [str(shutil.which("docker-registry", path=PATH)), "serve", str(folder / "config.yml")]
        self.process = Process(command, environment={"PATH": PATH, "HOME": str(folder)}, directory=folder)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}/v2/", trust_env=False, verify=NO_TLS)
        eventually(self.answers, what="the registry answers")

    def answers(self) -> bool:
        try:
            return self.http.get("").status_code == 200
        except httpx.TransportError:
            return False

    def push(self, name: str, tag: str, text: str) -> str:
        """An index with one image for this architecture; the digest of the index."""
        platform = {"architecture": "amd64", "os": "linux"}
        config = platform | {"rootfs": {"type": "layers", "diff_ids": []}, "created_by": text}
        blob = self._blob(name, json.dumps(config).encode())
        described = {"mediaType": CONFIG, "digest": blob, "size": len(json.dumps(config))}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": []}
        image = self._manifest(name, None, manifest)
        one = {"mediaType": MANIFEST, "digest": image, "size": len(json.dumps(manifest)), "platform": platform}
        return self._manifest(name, tag, {"schemaVersion": 2, "mediaType": INDEX, "manifests": [one]})

    def _blob(self, name: str, content: bytes) -> str:
        place = self.http.post(f"{name}/blobs/uploads/").headers["location"]
        self.http.put(f"{place}&digest={_digest(content)}", content=content).raise_for_status()
        return _digest(content)

    def _manifest(self, name: str, tag: str | None, manifest: Mapping[str, object]) -> str:
        content, headers = json.dumps(manifest).encode(), {"content-type": str(manifest["mediaType"])}
        url = f"{name}/manifests/{tag or _digest(content)}"
        self.http.put(url, content=content, headers=headers).raise_for_status()
        return _digest(content)

    def close(self) -> None:
        self.http.close()
        self.process.kill()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
