"""deploy/kubernetes.yaml and deploy/keda.yaml say nothing that Kubernetes or KEDA would refuse, or pass over."""

import json
import unittest
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError
from kubernetes_validate import ValidationError as Refused
from kubernetes_validate import validate

HERE = Path(__file__).resolve().parent
FILES = [HERE.parents[1] / "deploy" / name for name in ("kubernetes.yaml", "keda.yaml")]
VERSIONS = ("1.29", "1.37")  # the oldest that is promised, and the newest that has schemas
KEDA = Draft202012Validator(json.loads((HERE / "keda.json").read_text()))


def documents() -> list[dict[str, Any]]:
    """Of both files."""
    return [document for file in FILES for document in yaml.safe_load_all(file.read_text()) if document]


def is_keda(document: dict[str, Any]) -> bool:
    """Whether Kubernetes itself knows it not."""
    return document["apiVersion"].startswith("keda.sh/")


def at(document: Any, *path: str | int) -> Any:
    """What is deep within."""
    for step in path:
        document = document[step]
    return document


class Manifests(unittest.TestCase):
    """Checked strictly: what is not in the schema is a mistake."""

    def test_kubernetes_takes_them(self) -> None:
        checked = [document for document in documents() if not is_keda(document)]
        self.assertEqual(len(checked), 6)
        for document in checked:
            for version in VERSIONS:
                with self.subTest(kind=document["kind"], name=document["metadata"]["name"], version=version):
                    validate(document, version, strict=True)

    def test_keda_takes_them(self) -> None:
        checked = [document for document in documents() if is_keda(document)]
        self.assertEqual([document["kind"] for document in checked], ["ScaledObject", "TriggerAuthentication"])
        for document in checked:
            KEDA.validate(document)

    def test_mistakes_are_seen(self) -> None:
        workers = documents()[0]
        at(workers, "spec", "template", "spec", "containers", 0)["enviroment"] = []
        with self.assertRaises(Refused):
            validate(workers, VERSIONS[0], strict=True)
        scaled = next(document for document in documents() if document["kind"] == "ScaledObject")
        at(scaled, "spec", "triggers", 0, "metadata")["targetvalue"] = "4"
        with self.assertRaises(ValidationError):
            KEDA.validate(scaled)


if __name__ == "__main__":
    unittest.main()
