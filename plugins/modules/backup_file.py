#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: write or read the one file of a backup, on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_file
short_description: Write or read the file of a backup of a head
version_added: 0.1.0
description:
  - The file is a tar archive with a manifest and the parts of the backup. The manifest has the digest of each part.
  - Only its owner may read the file. Secrets are encrypted before this module gets them.
options:
  path:
    description: The file.
    type: path
    required: true
  state:
    description: C(present) writes the file, C(read) checks it and returns what is in it.
    type: str
    choices: [present, read]
    required: true
  manifest:
    description: What the backup is of; for O(state=present).
    type: dict
    default: {}
  parts:
    description: Content of the parts by name, in base64; for O(state=present).
    type: dict
    default: {}
  directory:
    description: An empty directory that gets the parts; for O(state=read).
    type: path
attributes:
  check_mode: {support: full, description: Writes nothing; O(state=read) checks the file.}
author:
  - SeedCore maintainers (@seedcore)
"""

EXAMPLES = r"""
- name: Check a backup, and take it apart
  seedcore.cluster.backup_file:
    path: backup.tar
    state: read
    directory: /tmp/parts
"""

RETURN = r"""
manifest:
  description: The manifest.
  returned: success
  type: dict
parts:
  description: The paths of the parts by name.
  returned: with O(directory)
  type: dict
bytes:
  description: Size of the file.
  returned: success
  type: int
"""

import base64
import hashlib
import io
import json
import os
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

FORMAT = 1
MANIFEST = "manifest.json"


class BackupError(Exception):
    """The file cannot be written or used; the text tells why."""


def write(path: Path, manifest: dict[str, Any], parts: dict[str, bytes]) -> None:
    """Write the file in one step, for its owner only."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}
    document = json.dumps({**manifest, "format": FORMAT, "digests": digests}, indent=1, sort_keys=True).encode()
    descriptor, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            with tarfile.open(fileobj=stream, mode="w") as archive:
                for name, content in {MANIFEST: document, **parts}.items():
                    entry = tarfile.TarInfo(name)
                    entry.size, entry.mode = len(content), 0o600
                    archive.addfile(entry, io.BytesIO(content))
            stream.flush()
            os.fsync(stream.fileno())
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink()
        raise


def read(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the manifest and the parts.

    Raises:
        BackupError: It is no backup, is damaged, or was made by a newer release.
    """
    try:
        with tarfile.open(path) as archive:
            found = {entry.name: stream.read() for entry in archive if (stream := archive.extractfile(entry))}
        manifest = json.loads(found.pop(MANIFEST))
        digests = manifest["digests"]
    except (OSError, tarfile.TarError, KeyError, ValueError, TypeError) as error:
        raise BackupError(f"{path} is not a backup, or is damaged: {error}") from error
    if manifest["format"] > FORMAT:
        raise BackupError(
            f"{path} has format {manifest['format']}, expected at most {FORMAT}: restore it with the newer release"
        )
    wrong = [
        name
        for name in sorted({*digests, *found})
        if hashlib.sha256(found.get(name, b"")).hexdigest() != digests.get(name)
    ]
    if wrong:
        raise BackupError(f"{path} is damaged: the digest of {', '.join(wrong)} does not agree with the manifest")
    return manifest, found


def unpack(parts: dict[str, bytes], directory: Path) -> dict[str, str]:
    """Write the parts into a directory, for its owner only; return their paths."""
    paths = {}
    for name, content in parts.items():
        if "/" in name or name.startswith("."):
            raise BackupError(f"a part has the name {name!r}")
        target = directory / name
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(content)
        paths[name] = str(target)
    return paths


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "read"], "required": True},
            "manifest": {"type": "dict", "default": {}},
            "parts": {"type": "dict", "default": {}, "no_log": True},
            "directory": {"type": "path"},
        },
        supports_check_mode=True,
    )
    params, path = module.params, Path(module.params["path"])
    try:
        if params["state"] == "present":
            parts = {name: base64.b64decode(content) for name, content in params["parts"].items()}
            if not module.check_mode:
                write(path, params["manifest"], parts)
            size = 0 if module.check_mode else path.stat().st_size
            module.exit_json(changed=True, manifest=params["manifest"], bytes=size)
        manifest, found = read(path)
        paths = unpack(found, Path(params["directory"])) if params["directory"] else {}
    except BackupError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or path}: {error.strerror}")
    module.exit_json(changed=False, manifest=manifest, parts=paths, bytes=path.stat().st_size)


if __name__ == "__main__":
    main()
