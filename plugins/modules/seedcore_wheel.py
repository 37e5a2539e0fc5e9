#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Build the wheels of a release and compute digests of them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: seedcore_wheel
short_description: Build the wheels of a SeedCore release, and compute digests of their content
version_added: 0.1.0
description:
  - Runs on the controller. It builds source trees and git repositories with C(uv build), copies wheels, and resolves
    requirements, together with those of the wheels, into a list with hashes.
  - A digest covers the files inside of the wheels, so the same source gives the same digest on any machine, at any
    time.
  - Writes only into O(dest), also in check mode, because the digest needs the wheels.
options:
  package:
    description:
      - The C(seedcore) to install, a source tree, a wheel, or a requirement that names one version
        (C(seedcore==0.1.0)).
    type: path
    required: true
  extra:
    description: Additional packages, each a source tree, a wheel, or a requirement.
    type: list
    elements: path
    default: []
  environments:
    description:
      - The packages of each environment that organs may run in instead, name to list. They are resolved and installed
        by themselves, so that two environments may have different versions of one package.
    type: dict
    default: {}
  lock:
    description: File with the locked requirements; its content is part of the digest.
    type: path
    required: true
  dest:
    description:
      - Directory for the wheels; must exist. By default a temporary directory that is removed when the playbook ends.
    type: path
  directory:
    description: Base directory of relative paths.
    type: path
    required: true
  uv:
    description: The C(uv) that builds, a path or a name to look for in C(PATH).
    type: path
    default: uv
  timeout:
    description: Time limit in seconds of one build, or of the resolution of the extra requirements, 1 or more.
    type: int
    default: 300
  python:
    description: Version of the target Python.
    type: str
    default: "3.11"
  wheelhouse:
    description: Tar file with all available packages, instead of a package index.
    type: path
  environment:
    description:
      - Environment of C(uv) and C(git), such as another index. A password in it appears on no command line, because
        the controller runs this in its own process.
    type: dict
    default: {}
  cache:
    description:
      - Directory for built wheels, by a digest of their source; created if it is missing. A tree whose wheel is in it
        is not built again. By default C(seedcore/wheels) in the cache directory of the user.
      - Compiled wheels, and those whose build takes the version from git, are built in every run.
    type: path
attributes:
  check_mode:
    description: Does the same in check mode.
    support: full
  diff_mode:
    description: Has nothing to show.
    support: none
author:
  - SeedCore maintainers (@seedcore)
"""

EXAMPLES = r"""
- name: Build the wheels of the release
  seedcore.cluster.seedcore_wheel:
    package: /home/me/seedcore
    extra:
      - examples/textdesk
      - numpy>=2
    lock: /home/me/seedcore/roles/seedcore/files/requirements.txt
    directory: /home/me/seedcore
  delegate_to: localhost
"""

RETURN = r"""
version:
  description: Version of the C(seedcore) package.
  returned: success
  type: str
  sample: 0.1.0
digest:
  description: Digest of the C(seedcore) to install and of the lock.
  returned: success
  type: str
extra_digest:
  description: Digest of the extra packages and of their locked requirements; empty if there are none.
  returned: success
  type: str
package:
  description: The C(seedcore) to install, the name of a file in O(dest) or a requirement.
  returned: success
  type: str
  sample: seedcore-0.1.0-py3-none-any.whl
extra:
  description: Other packages to install, names of files in O(dest) or requirements.
  returned: success
  type: list
  elements: str
extra_wheels:
  description: Those of RV(extra) that are files in O(dest).
  returned: success
  type: list
  elements: str
extra_lock:
  description:
    - Requirements of the extra packages beyond O(lock), resolved once for all nodes; a requirements file with hashes.
  returned: success
  type: str
environments:
  description:
    - What each environment consists of, by its name. C(digest), C(extra) and C(lock) are those of its packages, as
      RV(extra_digest), RV(extra) and RV(extra_lock); C(wheels) are files in C(environments/NAME) of RV(dest).
  returned: success
  type: dict
dest:
  description: The directory with the wheels.
  returned: success
  type: str
wheels:
  description: The files in RV(dest).
  returned: success
  type: list
  elements: str
compiled:
  description: Wheels that were built here for one kind of machine; each build may give another RV(digest).
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.seedcore.cluster.plugins.module_utils import locking, wheels


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=wheels.ARGUMENT_SPEC, supports_check_mode=True)
    try:
        found, warnings = wheels.run(module.params)
    except (wheels.PackageError, locking.ResolutionError) as error:
        module.fail_json(msg=str(error))
    for warning in warnings:
        module.warn(warning)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
