"""Judges objects by Kubernetes' own schemas, unknown fields included.

Standard input: JSON, a list of [version, object]. Standard output: a JSON list of what is wrong.
"""

import functools
import json
import sys

from kubernetes_validate import utils

# It reads its files anew for each object otherwise.
utils.schema_contents = functools.lru_cache(maxsize=None)(utils.schema_contents)


def judge(version, found):
    name = "%s %s" % (found.get("kind"), found.get("metadata", {}).get("name"))
    try:
        judged = utils.validate(found, version, strict=True)
    except utils.ValidationError as error:
        return "%s: %s: %s" % (name, ".".join(str(part) for part in error.path), error.message)
    except utils.SchemaNotFoundError as error:
        return "%s: %s" % (name, error.message)
    # Silently takes the newest schemas that it has when it does not know a version.
    return None if judged == version else "no schemas of %s, only of %s" % (version, judged)


print(json.dumps([wrong for wrong in (judge(*one) for one in json.load(sys.stdin)) if wrong]))
