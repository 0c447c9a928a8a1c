"""Writes the descriptors of Envoy's v3 API, as one FileDescriptorSet.

    descriptors.py PACKAGE OUT

PACKAGE is the folder where `xds-protos` is installed. With the descriptors the
control plane of the tests turns the JSON of any Envoy resource into protobuf,
without thousands of generated types.
"""

import importlib
import pathlib
import sys

# Not a plain PYTHONPATH: the package brings a `google` of its own, which has to come first.
package = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(package))

from google.protobuf import descriptor_pb2  # noqa: E402

ROOTS = [
    "envoy/config/cluster/v3",
    "envoy/config/core/v3",
    "envoy/config/endpoint/v3",
    "envoy/config/listener/v3",
    "envoy/config/route/v3",
    "envoy/extensions",
    "udpa/type/v1",
    "xds/type/v3",
]


def modules():
    for root in ROOTS:
        for path in sorted((package / root).rglob("*_pb2.py")):
            yield ".".join(path.relative_to(package).with_suffix("").parts)


def add(descriptor, done, out):
    """A file after those that it imports."""
    if descriptor.name in done:
        return
    done.add(descriptor.name)
    for dependency in descriptor.dependencies:
        add(dependency, done, out)
    descriptor.CopyToProto(out.file.add())


def main():
    out = descriptor_pb2.FileDescriptorSet()
    done = set()
    for name in modules():
        add(importlib.import_module(name).DESCRIPTOR, done, out)
    if not out.file:
        sys.exit(f"descriptors.py: no Envoy protos in {package}")
    target = pathlib.Path(sys.argv[2])
    partial = target.with_suffix(".partial")
    partial.write_bytes(out.SerializeToString())
    partial.replace(target)


main()
